// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/stack"
)

// nodeState is what C8s changes on a node: files by path, and the kernel by
// the command that shows it.
type nodeState map[string]string

// state looks at a node.
func (s *Site) state(ctx context.Context, n *stack.Node) (nodeState, error) {
	found := nodeState{}
	for _, root := range []string{"/etc/containerd", "/etc/cni/net.d", "/opt/cni/bin", "/etc/c8s", "/opt/c8s"} {
		at := n.Path(root)
		err := filepath.WalkDir(at, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			is := info.Mode().String()
			switch {
			case info.Mode().IsRegular():
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				is += fmt.Sprintf(" %x", sha256.Sum256(data))
			case info.Mode()&fs.ModeSymlink != 0:
				to, err := os.Readlink(path)
				if err != nil {
					return err
				}
				is += " to " + to
			}
			found[root+strings.TrimPrefix(path, at)] = is
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking at %s of %s: %w", root, n.Name(), err)
		}
	}
	for _, command := range []string{
		"find /sys/fs/bpf -mindepth 1", "ip rule", "ip -6 rule", "ip route show table 15008", "ip -6 route show table 15008", "nft list tables",
	} {
		// A table without routes is none, which is an error.
		out, err := n.Run(ctx, "bash", "-c", command+" 2>/dev/null || true")
		if err != nil {
			return nil, err
		}
		found[command] = out
	}
	return found, nil
}

// remember keeps what nodes were before the installation.
func (s *Site) remember(ctx context.Context) error {
	for _, n := range s.Nodes {
		state, err := s.state(ctx, n)
		if err != nil {
			return err
		}
		s.before = append(s.before, state)
	}
	return nil
}

// differences are the lines in which two states differ.
func differences(was, is nodeState) (list []string) {
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if was[key] != is[key] {
			list = append(list, fmt.Sprintf("%s: was %q, is %q", key, was[key], is[key]))
		}
	}
	return list
}

// plain is a pod that no manifest lists.
const plain = `
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: plain}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, plain, -http, ":8081"], readinessProbe: {httpGet: {port: 8081}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: plain}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [sleep]}]
`

// Uninstalled as deploy/README.md says, a node is what it was.
func testUninstall(t *testing.T, s *Site) {
	ctx := t.Context()
	for _, n := range s.Nodes { // too early
		if out, err := n.Run(ctx, s.program("c8s"), "node", "uninstall", "--yes"); err == nil || !strings.Contains(out, "helm uninstall") {
			t.Fatalf("with the daemon running: %v, %s", err, out)
		}
	}
	if out, err := s.Helm(ctx, "uninstall", "c8s", "-n", systemNamespace, "--cascade", "foreground", "--wait"); err != nil {
		t.Fatal(err, out)
	}
	for _, n := range s.Nodes {
		if pids, err := s.daemons(n); err != nil || len(pids) != 0 {
			t.Fatalf("daemons on %s: %v, %v", n.Name(), pids, err)
		}
	}
	// Until the nodes are uninstalled, too, the lock holds.
	must(t, s.Apply(ctx, plain))
	must(t, s.until(ctx, "a pod to be refused", func() error {
		out, err := s.Kubectl(ctx, "get", "events", "-n", "plain")
		if err == nil && !strings.Contains(out, "FailedCreatePodSandBox") {
			err = errors.New(out)
		}
		return err
	}))
	for _, n := range s.Nodes {
		out, err := n.Run(ctx, s.program("c8s"), "node", "uninstall", "--yes")
		if err != nil {
			t.Fatal(err, out)
		}
		must(t, n.RestartContainerd(ctx))
	}
	for _, pod := range []string{"web", "client"} {
		if out, err := s.Kubectl(ctx, "wait", "-n", "plain", "pod/"+pod, "--for=condition=Ready", "--timeout=2m"); err != nil {
			t.Fatal(err, out)
		}
	}
	ip, err := s.Kubectl(ctx, "get", "pod", "-n", "plain", "web", "-o", "jsonpath={.status.podIP}")
	must(t, err)
	packets, stop := watchLeaks(t, s, s.Nodes[1])
	if out, err := s.Kubectl(ctx, "exec", "-n", "plain", "client", "--", "/app", "get", "http://"+ip+":8081/"); err != nil || !strings.Contains(out, "200") {
		t.Errorf("plain pods do not talk: %v, %s", err, out)
	}
	stop()
	if count, _ := packets.found(); count == 0 {
		t.Error("they do not talk in the clear, or this test is blind")
	}
	// What was started through c8s-runtime may go on, and end.
	if out, err := s.Exec(ctx, "stranger", "/app", "get", "http://10.96.7.7:8080/"); err != nil || !strings.Contains(out, "200") {
		t.Errorf("pods that were there before: %v, %s", err, out)
	}
	s.emptyCluster(t)
	for i, n := range s.Nodes {
		out, err := n.Run(ctx, s.program("c8s"), "node", "uninstall", "--yes")
		if err != nil {
			t.Error(err, out)
		}
		is, err := s.state(ctx, n)
		must(t, err)
		for _, d := range differences(s.before[i], is) {
			t.Errorf("%s: %s", n.Name(), d)
		}
	}
}

// emptyCluster ends all pods.
func (s *Site) emptyCluster(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	out, err := s.Kubectl(ctx, "get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}")
	must(t, err)
	for _, namespace := range strings.Fields(out) {
		if namespace == "default" || strings.HasPrefix(namespace, "kube-") {
			_, err = s.Kubectl(ctx, "delete", "pods,deployments,daemonsets", "--all", "-n", namespace, "--timeout=2m")
		} else {
			_, err = s.Kubectl(ctx, "delete", "namespace", namespace, "--timeout=2m")
		}
		must(t, err)
	}
}
