// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func FuzzParse(f *testing.F) {
	good := sample(f)
	f.Add(good)
	f.Add(policytest.New(f, policytest.With(func(m *policy.Manifest) {
		m.NotBefore, m.Substrates[0].Expires = nextYear, map[string]string{policytest.Hex(0xaa, 48): nextYear}
		m.Recovery, m.Witnesses, m.WitnessQuorum = recoveryOf(f, 1, 2), []policy.Witness{witnessOf(f, "w1", 1)}, 1
	})).Payload)
	f.Add(policytest.New(f, policytest.With(func(m *policy.Manifest) { full(f, m) })).Payload)
	f.Add(policytest.New(f, policytest.With(outside)).Payload)
	f.Add(policytest.New(f, policytest.With(served)).Payload)
	f.Add([]byte(`{"schema":"c8s.dev/manifest/v1","schema":1}`))
	f.Add(bytes.Replace(good, []byte(`"any"`), []byte(`null`), 1))
	f.Add(bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 1e0`), 1))
	f.Add([]byte(`[[[[[[[[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := policy.Parse(text)
		if err != nil {
			if m != nil || policy.CodeOf(err) == "" {
				t.Fatalf("refusal without a code, or with a manifest: %v", err)
			}
			return
		}
		// What is accepted means the same to every JSON reader, and
		// survives being written again.
		if !json.Valid(text) {
			t.Fatal("accepted text that is not JSON")
		}
		again, err := policy.Encode(m)
		if err != nil {
			t.Fatalf("encoding an accepted manifest: %v", err)
		}
		m2, err := policy.Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		if changes := policy.Diff(m, m2); len(changes) != 0 {
			t.Fatalf("encoding changed the manifest: %v", changes)
		}
		if stopped := policy.Affected(m, m2, policytest.Now()); len(stopped) != 0 {
			t.Fatalf("publishing the same again stops %v", stopped)
		}
		policy.Lint(m, policytest.Now())
		m.PeerAllowed("web", "db", policy.ProtocolTCP, 6379)
		for _, w := range m.Workloads {
			outsideAgrees(t, m, &w)
		}
		ingressAgrees(t, m)
		m.Bind(policy.PodFacts{}, policytest.Container(policytest.Web))
		m.AcceptPeer(policy.Peer{Role: policy.RoleNode, TrustDomain: m.TrustDomain, ManifestVersion: 1, ManifestDigest: m.Digest()}, policytest.Now())
	})
}
