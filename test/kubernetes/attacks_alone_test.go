// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

// testAlone takes the daemon away from a worker, offers the node other operators
// and a manifest of theirs, and lets the daemon come back: what may start is
// never up to the control plane.
func testAlone(t *testing.T, s *Site) {
	ctx := t.Context()
	n := s.Nodes[1]
	own := s.object(t, "daemonset/c8s-node")
	trust := s.object(t, "configmap/c8s-trust")
	_, err := s.Kubectl(ctx, "delete", "-n", systemNamespace, "daemonset/c8s-node", "--cascade=orphan")
	must(t, err)
	before, err := s.Status(ctx, n)
	must(t, err)
	must(t, s.Apply(ctx, s.usurp(t, trust)))
	_, err = s.Kubectl(ctx, "delete", "pods", "-n", systemNamespace, "-l", "app.kubernetes.io/component=node", "--field-selector=spec.nodeName="+n.Name(), "--grace-period=1")
	must(t, err)

	const waived = `c8s.dev/tolerate-missing-plugin: "true"`
	onto := "nodeName: " + n.Name() + ", hostNetwork: true, containers: ["
	attempts := []attempt{
		pod("alone-evil", "image-unlisted", onto+evil+"]", waived),
		pod("alone-evil-entry", "image-unlisted", onto+evil+"]", waived, "c8s.dev/workload: c8s-node"),
		pod("alone-listed", "image-unlisted", onto+"{"+client+"}]", waived), // by no entry that may start alone
	}
	manners := slices.DeleteFunc(nodeManners(), func(m manner) bool { return m.code == "host-network" }) // it gets no network
	attempts = append(attempts, ownPods(t, "alone-", n, own, manners)...)
	s.try(t, attempts)
	s.refused(t, attempts)

	must(t, s.Apply(ctx, own))
	must(t, s.Rollout(ctx, "daemonset/c8s-node", "-n", systemNamespace))
	raw, err := os.ReadFile(n.Path("/etc/c8s/operators.json"))
	must(t, err)
	if operators, err := policy.ParseOperators(raw); err != nil || operators.Digest() != s.operators.Digest() {
		t.Errorf("the node trusts the control plane's operators: %v, %s", err, raw)
	}
	after, err := s.Status(ctx, n)
	must(t, err)
	if after.Manifest.Digest != before.Manifest.Digest {
		t.Errorf("another manifest is in force: %+v", after.Manifest)
	}
	again := []attempt{pod("usurped", "image-unlisted", "nodeName: "+n.Name()+", containers: ["+evil+"]")}
	s.try(t, again)
	s.refused(t, again)
	must(t, s.Apply(ctx, trust))
}

// object is one of C8s's, as it can be made again.
func (s *Site) object(t *testing.T, name string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "get", "-n", systemNamespace, name, "-o", "json")
	must(t, err)
	var o map[string]any
	must(t, json.Unmarshal([]byte(out), &o))
	delete(o, "status")
	for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
		delete(o["metadata"].(map[string]any), key)
	}
	raw, err := json.Marshal(o)
	must(t, err)
	return string(raw)
}

// usurp puts an attacker's operators and manifest, which lists everything, in
// place of the operators'.
func (s *Site) usurp(t *testing.T, trust string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	operator, err := policy.NewOperatorKey("attacker", key.Public())
	must(t, err)
	operators := policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{operator}}
	m := *s.manifest.Manifest
	m.Operators, m.Version, m.Previous = operators, m.Version+1, s.manifest.Digest
	m.Workloads = append(slices.Clone(m.Workloads), policy.Workload{Name: "evil", Images: []policy.Image{{Name: evilRef, Digest: policy.Digest(s.evil.Config)}}})
	payload, err := policy.Encode(&m)
	must(t, err)
	envelope, err := policy.Sign(payload, key)
	must(t, err)
	named, err := json.Marshal(operators)
	must(t, err)
	var o map[string]any
	must(t, json.Unmarshal([]byte(trust), &o))
	o["data"] = map[string]string{"operators.json": string(named), "manifest.json": string(envelope)}
	raw, err := json.Marshal(o)
	must(t, err)
	return string(raw)
}
