// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func wantDecision(t *testing.T, d policy.Decision, code policy.Code) {
	t.Helper()
	if d.Code != code || d.Allowed != (code == policy.CodeAllowed) {
		t.Fatalf("decision = %+v, want %s", d, code)
	}
	if d.Rule == "" && code != policy.CodeUndecided {
		t.Errorf("decision %+v names no rule", d)
	}
	if d.Allowed {
		if d.Err() != nil {
			t.Errorf("an allowed decision is an error: %v", d.Err())
		}
		return
	}
	if d.Expected == "" || d.Actual == "" {
		t.Errorf("refusal %+v lacks expected or actual", d)
	}
	if policy.CodeOf(fmt.Errorf("connecting: %w", d.Err())) != code || !strings.Contains(d.Error(), string(code)) {
		t.Errorf("error %v does not carry %s", d.Err(), code)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	var d policy.Decision
	if d.Err() == nil || policy.CodeOf(d.Err()) != policy.CodeUndecided {
		t.Errorf("zero decision: %v", d.Err())
	}
	if policy.CodeOf(errors.New("other")) != "" || policy.CodeOf(nil) != "" {
		t.Error("foreign errors have codes")
	}
	f := policytest.New(t)
	for name, m := range map[string]*policy.Manifest{"nil": nil, "zero": {}, "built by hand": policytest.Manifest(f.Operators)} {
		t.Run(name, func(t *testing.T) {
			w, d := m.Admit(policy.PodFacts{Images: []policy.Digest{policytest.Digest(policytest.Web)}})
			wantDecision(t, d, policy.CodeUndecided)
			wantDecision(t, m.PeerAllowed(policytest.Web, policytest.DB, policy.ProtocolTCP, policytest.DBPort), policy.CodeUndecided)
			wantDecision(t, m.AcceptPeer(policytest.Peer(f.Signed, policytest.Web), policytest.Now()), policy.CodeUndecided)
			wantDecision(t, m.AcceptSubstrate(policy.RoleNode, policytest.Facts(), policy.GuestFacts{}, policytest.Now()).Decision, policy.CodeUndecided)
			if _, ok := m.Workload(policytest.Web); ok || w != nil || m.Digest() != "" {
				t.Error("a manifest that was not parsed has workloads or a digest")
			}
		})
	}
}

func TestAdmitFindsTheOneEntryOfAPod(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		image := func(name string) policy.Image { return policy.Image{Name: name, Digest: policytest.Digest(name)} }
		m.Workloads[0].Images = append(m.Workloads[0].Images, image("sidecar"))
		m.Workloads[1].Images = append(m.Workloads[1].Images, image("sidecar"))
		m.Workloads = append(m.Workloads,
			policy.Workload{Name: "jobs", Images: []policy.Image{image("job")}, Namespaces: []string{"batch", "nightly"}},
			policy.Workload{Name: "twin-a", Images: []policy.Image{image("twin")}},
			policy.Workload{Name: "twin-b", Images: []policy.Image{image("twin")}},
		)
	}))
	tests := []struct {
		name      string
		namespace string
		images    string
		entry     string
		want      string
		code      policy.Code
	}{
		{"one image", "x", "web", "", "web", policy.CodeAllowed},
		{"with sidecar", "x", "web sidecar", "", "web", policy.CodeAllowed},
		{"the same image in two containers", "x", "db db sidecar", "", "db", policy.CodeAllowed},
		{"named", "x", "db", "db", "db", policy.CodeAllowed},
		{"named twin", "x", "twin", "twin-b", "twin-b", policy.CodeAllowed},
		{"in a listed namespace", "nightly", "job", "", "jobs", policy.CodeAllowed},
		{"no image", "x", "", "", "", policy.CodeNoImages},
		{"no image, but a name", "x", "", "web", "", policy.CodeNoImages},
		{"unlisted image", "x", "miner", "", "", policy.CodeImageUnlisted},
		{"unlisted image beside a listed one", "x", "web miner", "", "", policy.CodeImageUnlisted},
		{"ambiguous by a shared sidecar", "x", "sidecar", "", "", policy.CodeWorkloadAmbiguous},
		{"ambiguous twins", "x", "twin", "", "", policy.CodeWorkloadAmbiguous},
		{"images of two entries", "x", "web db", "", "", policy.CodeImagesSpan},
		{"other namespace", "default", "job", "", "", policy.CodeNamespaceNotAllowed},
		{"other namespace, named", "default", "job", "jobs", "", policy.CodeNamespaceNotAllowed},
		{"a name does not widen", "x", "web", "db", "", policy.CodeImageUnlisted},
		{"unlisted name", "x", "web", "nobody", "", policy.CodeWorkloadUnlisted},
		{"name with an escape", "x", "web", "\x1b[2J", "", policy.CodeWorkloadUnlisted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := policy.PodFacts{Namespace: tt.namespace, Entry: tt.entry}
			for _, name := range strings.Fields(tt.images) {
				p.Images = append(p.Images, policytest.Digest(name))
			}
			w, d := f.Manifest.Admit(p)
			wantDecision(t, d, tt.code)
			if (w != nil) != d.Allowed || (w != nil && w.Name != tt.want) {
				t.Errorf("entry = %+v, want %q", w, tt.want)
			}
			if strings.ContainsRune(d.Error(), '\x1b') {
				t.Errorf("the message carries a terminal escape: %q", d.Error())
			}
		})
	}
}

func TestAdmitRefusesOddDigestSpellings(t *testing.T) {
	f := policytest.New(t)
	good := string(policytest.Digest(policytest.Web))
	for _, image := range []string{"", strings.ToUpper(good), good[len("sha256:"):], good + " ", "sha256:"} {
		_, d := f.Manifest.Admit(policy.PodFacts{Images: []policy.Digest{policy.Digest(image)}})
		wantDecision(t, d, policy.CodeImageUnlisted)
	}
}

func TestWorkloadDigestCoversWhoMayBearTheName(t *testing.T) {
	base := policy.Workload{
		Name: "a", Images: []policy.Image{{Name: "x", Digest: policytest.Digest("x")}, {Name: "y", Digest: policytest.Digest("y")}},
		Namespaces: []string{"one", "two"},
	}
	tests := map[string]struct {
		edit func(w *policy.Workload)
		same bool
	}{
		"image order":       {func(w *policy.Workload) { slices.Reverse(w.Images) }, true},
		"image name":        {func(w *policy.Workload) { w.Images[0].Name = "z" }, true},
		"namespace order":   {func(w *policy.Workload) { slices.Reverse(w.Namespaces) }, true},
		"peers":             {func(w *policy.Workload) { w.Peers.To = []policy.PeerRule{{Workload: "b"}} }, true},
		"host access":       {func(w *policy.Workload) { w.HostAccess = true }, true},
		"name":              {func(w *policy.Workload) { w.Name = "b" }, false},
		"image digest":      {func(w *policy.Workload) { w.Images[0].Digest = policytest.Digest("z") }, false},
		"image more":        {func(w *policy.Workload) { w.Images = append(w.Images, policy.Image{Digest: policytest.Digest("z")}) }, false},
		"namespace less":    {func(w *policy.Workload) { w.Namespaces = w.Namespaces[:1] }, false},
		"every namespace":   {func(w *policy.Workload) { w.Namespaces = nil }, false},
		"namespace renamed": {func(w *policy.Workload) { w.Namespaces = []string{"onetwo"} }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := base
			w.Images, w.Namespaces = slices.Clone(base.Images), slices.Clone(base.Namespaces)
			tt.edit(&w)
			if (w.Digest() == base.Digest()) != tt.same {
				t.Errorf("same digest = %t, want %t", !tt.same, tt.same)
			}
		})
	}
	empty, none := base, base
	empty.Namespaces, none.Namespaces = []string{}, nil
	if empty.Digest() != none.Digest() {
		t.Error("nil and empty lists differ")
	}
	const vector = "sha256:8ad0cb9b32efce54ef143656c935e6b8d337358702c146c6c80d69fc28694cf9"
	if base.Digest() != vector {
		t.Errorf("digest = %s, want %s: certificates in the field carry it", base.Digest(), vector)
	}
}

func TestPeerAllowedNeedsBothSides(t *testing.T) {
	rule := func(workload string, ports ...uint16) policy.PeerRule {
		return policy.PeerRule{Workload: workload, Ports: ports, Protocol: policy.ProtocolTCP}
	}
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].Peers.To = []policy.PeerRule{rule("db", 6379, 1, 2), rule("closed", 80), rule("web", 9)}
		m.Workloads[0].Peers.From = []policy.PeerRule{rule("web", 9)}
		m.Workloads[1].Peers.From = []policy.PeerRule{rule("web", 6379, 1, 3), rule("lonely", 6379)}
		image := []policy.Image{{Name: "x", Digest: policytest.Digest("x")}}
		m.Workloads = append(m.Workloads, policy.Workload{Name: "closed", Images: image}, policy.Workload{Name: "lonely", Images: image})
	}))
	tests := []struct {
		from, to string
		port     uint16
		code     policy.Code
	}{
		{"web", "db", 6379, policy.CodeAllowed},
		{"web", "db", 1, policy.CodeAllowed},
		{"web", "web", 9, policy.CodeAllowed},
		{"web", "db", 2, policy.CodePortNotAllowed}, // only the opener lists it
		{"web", "db", 3, policy.CodePortNotAllowed}, // only the acceptor lists it
		{"web", "db", 0, policy.CodePortNotAllowed},
		{"db", "web", 6379, policy.CodePeerNotAllowedEgress}, // rules have a direction
		{"db", "db", 6379, policy.CodePeerNotAllowedEgress},
		{"lonely", "db", 6379, policy.CodePeerNotAllowedEgress},
		{"web", "closed", 80, policy.CodePeerNotAllowedIngress},
		{"web", "nobody", 80, policy.CodeWorkloadUnlisted},
		{"nobody", "db", 6379, policy.CodeWorkloadUnlisted},
		{"", "", 0, policy.CodeWorkloadUnlisted},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s to %s port %d", tt.from, tt.to, tt.port), func(t *testing.T) {
			wantDecision(t, f.Manifest.PeerAllowed(tt.from, tt.to, policy.ProtocolTCP, tt.port), tt.code)
		})
	}
}

func TestSucceedsKeepsOneChain(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(3, 2))
	second := f.Next(t, nil)
	third := second.Next(t, nil)
	jump := f.Next(t, func(m *policy.Manifest) { m.Version = 9 })
	fork := f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	moved := f.Next(t, func(m *policy.Manifest) { m.TrustDomain = "other.test" })

	takers, takerKeys := policytest.Operators(t, 1, 1)
	takeover := *f.Manifest
	takeover.Version, takeover.Previous, takeover.Operators = 2, f.Digest, takers
	stolen := policytest.Sign(t, &takeover, takers, takerKeys...)
	handed := policytest.Sign(t, &takeover, f.Operators, f.Keys[0], f.Keys[2])
	swapped := *second.Signed
	swapped.Payload = f.Payload

	tests := []struct {
		name       string
		prev, next *policy.Signed
		code       policy.Code
	}{
		{"next version", f.Signed, second.Signed, policy.CodeAllowed},
		{"numbers may jump", f.Signed, jump.Signed, policy.CodeAllowed},
		{"operators hand over", f.Signed, handed, policy.CodeAllowed},
		{"same again", f.Signed, f.Signed, policy.CodeManifestUnchanged},
		{"older", second.Signed, f.Signed, policy.CodeManifestRolledBack},
		{"fork of the same version", second.Signed, fork.Signed, policy.CodeManifestForked},
		{"successor of a fork", fork.Signed, third.Signed, policy.CodeManifestForked},
		{"one left out", f.Signed, third.Signed, policy.CodeManifestGap},
		{"other trust domain", f.Signed, moved.Signed, policy.CodeTrustDomain},
		{"signed by its own new operators only", f.Signed, stolen, policy.CodeManifestUnauthorised},
		{"payload that is not the envelope's", f.Signed, &swapped, policy.CodePayloadMismatch},
		{"no previous", nil, f.Signed, policy.CodeUndecided},
		{"no next", f.Signed, nil, policy.CodeUndecided},
		{"not opened", f.Signed, &policy.Signed{Manifest: &policy.Manifest{Version: 2}}, policy.CodeUndecided},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantDecision(t, policy.Succeeds(tt.prev, tt.next), tt.code)
		})
	}
}
