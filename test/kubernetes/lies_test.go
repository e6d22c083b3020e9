// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/datapath/flow"
)

// ghost is a node that is a machine without C8s, and a pod there which claims
// another's address. Of two pods with one address the smaller name has it.
const ghost = `
apiVersion: v1
kind: Node
metadata: {name: aghost}
---
apiVersion: v1
kind: Pod
metadata: {name: aaa, namespace: attacks}
spec: {nodeName: aghost, tolerations: [{operator: Exists}], terminationGracePeriodSeconds: 0, containers: [{name: ghost, image: nothing}]}
`

// testLies: an API server that lies about where pods are makes connections
// fail, and no byte of them reaches whom it named.
func testLies(t *testing.T, s *Site) {
	ctx := t.Context()
	ip, err := s.victim(ctx, "{.items[0].status.podIP}")
	must(t, err)
	url := "http://" + ip + "/"
	if out, err := s.Exec(ctx, "client", "/app", "get", url); err != nil {
		t.Fatalf("the client does not reach the victim: %v, %s", err, out)
	}
	liar, outside := new(ear), s.ControlPlane.Addr().String()
	liar.listen(t, s.ControlPlane, outside+":15008")
	must(t, s.Apply(ctx, ghost))
	for _, patch := range [][]string{
		{"node", "aghost", fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`, outside)},
		{"pod", "aaa", fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%[1]q}]}}`, ip)},
	} {
		_, err := s.Kubectl(ctx, "patch", "-n", attacks, patch[0], patch[1], "--subresource=status", "--type=merge", "-p", patch[2])
		must(t, err)
	}
	must(t, s.until(ctx, "a connection to whom the API server names", func() error {
		if out, err := s.Exec(ctx, "client", "/app", "get", url); err == nil && strings.Contains(out, "outside") {
			t.Errorf("the client talks to a machine without attestation: %s", out)
		}
		if len(liar.all()) == 0 {
			return errors.New("nobody came")
		}
		return nil
	}))
	for _, heard := range liar.all() {
		if !strings.HasPrefix(heard, "\x16\x03") || strings.Contains(heard, "GET") {
			t.Errorf("it heard more than the beginning of a handshake: %q", heard)
		}
	}
	records, err := s.Flows(ctx, s.Nodes[1])
	must(t, err)
	if !slices.ContainsFunc(records, func(r flow.Record) bool {
		return r.Verdict == flow.Refused && r.Reason == "handshake-failed" && r.SrcWorkload == "client" && r.Dst.Addr().String() == ip
	}) {
		t.Error("no record of the failed handshake")
	}
	for _, lie := range []string{"pod/aaa", "node/aghost"} {
		_, err := s.Kubectl(ctx, "delete", "-n", attacks, lie, "--force", "--grace-period=0")
		must(t, err)
	}
	must(t, s.until(ctx, "the truth", func() error {
		_, err := s.Exec(ctx, "client", "/app", "get", url)
		return err
	}))
	t.Run("hidden pod", func(t *testing.T) { testHidden(t, s) })
}

// testHidden: a pod that the API server does not know of any more is in the
// mesh under its own name, and nothing else, while its container runs.
func testHidden(t *testing.T, s *Site) {
	ctx := t.Context()
	must(t, s.Nodes[1].Process("kubelet").Kill())
	_, err := s.Kubectl(ctx, "delete", "-n", attacks, "pod/hosts", "--force", "--grace-period=0")
	must(t, err)
	is := func() (string, error) {
		status, err := s.Status(ctx, s.Nodes[1])
		if err != nil {
			return "", err
		}
		for _, p := range status.Pods {
			if p.Pod == attacks+"/hosts" {
				return p.Workload, nil
			}
		}
		return "", nil
	}
	if who, err := is(); err != nil || who != "client" {
		t.Errorf("the hidden pod is %q, %v", who, err)
	}
	must(t, s.StartKubelet(ctx, s.Nodes[1]))
	must(t, s.until(ctx, "the end of the hidden pod", func() error {
		if who, err := is(); err != nil || who != "" {
			return fmt.Errorf("it is %q, %w", who, err)
		}
		return nil
	}))
}
