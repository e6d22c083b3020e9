// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func guest(edit func(*policy.GuestFacts)) policy.GuestFacts {
	g := policytest.Guest()
	edit(&g)
	return g
}

func TestAcceptPeerJudgesEveryFact(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].HostData = []string{policytest.Hex(0, 32)}
		m.Substrates[0].Machines = []string{policytest.Hex(0xcc, 64)}
		m.Substrates[0].Roles = []policy.Role{policy.RoleNode}
	})).Next(t, nil)
	tests := []struct {
		name string
		edit func(p *policy.Peer)
		code policy.Code
	}{
		{"good", func(*policy.Peer) {}, policy.CodeAllowed},
		{"node", func(p *policy.Peer) { p.Role, p.Workload, p.WorkloadDigest = policy.RoleNode, "", "" }, policy.CodeAllowed},
		{"one manifest behind us", func(p *policy.Peer) { p.ManifestVersion, p.ManifestDigest = 1, f.Manifest.Previous }, policy.CodeAllowed},
		{"newer TCB", func(p *policy.Peer) { p.TCB.Microcode = 255 }, policy.CodeAllowed},
		{"trust domain", func(p *policy.Peer) { p.TrustDomain = "evil.test" }, policy.CodeTrustDomain},
		{"no trust domain", func(p *policy.Peer) { p.TrustDomain = "" }, policy.CodeTrustDomain},
		{"no role", func(p *policy.Peer) { p.Role = "" }, policy.CodeRole},
		{"unknown role", func(p *policy.Peer) { p.Role = "admin" }, policy.CodeRole},
		{"node with a workload", func(p *policy.Peer) { p.Role = policy.RoleNode }, policy.CodeRole},
		{"role no substrate carries", func(p *policy.Peer) { p.Role, p.Workload, p.WorkloadDigest = policy.RoleCDS, "", "" }, policy.CodeRole},
		{"unlisted workload", func(p *policy.Peer) { p.Workload = "nobody" }, policy.CodeWorkloadUnlisted},
		{"no workload", func(p *policy.Peer) { p.Workload = "" }, policy.CodeWorkloadUnlisted},
		{"entry of another workload", func(p *policy.Peer) { p.Workload = policytest.DB }, policy.CodeWorkloadChanged},
		{"no entry digest", func(p *policy.Peer) { p.WorkloadDigest = "" }, policy.CodeWorkloadChanged},
		{"newer manifest", func(p *policy.Peer) { p.ManifestVersion = 3 }, policy.CodeManifestBehind},
		{"fork of this manifest", func(p *policy.Peer) { p.ManifestDigest = policytest.Digest("fork") }, policy.CodeManifestForked},
		{"fork of the previous manifest", func(p *policy.Peer) { p.ManifestVersion = 1 }, policy.CodeManifestForked},
		{"no manifest version", func(p *policy.Peer) { p.ManifestVersion = 0 }, policy.CodeManifestUnknown},
		{"no manifest digest", func(p *policy.Peer) { p.ManifestDigest = "" }, policy.CodeManifestUnknown},
		{"TEE", func(p *policy.Peer) { p.TEE = "" }, policy.CodeTEE},
		{"product", func(p *policy.Peer) { p.Product = policy.ProductGenoa }, policy.CodeProduct},
		{"real where simulated is meant", func(p *policy.Peer) { p.Simulated = false }, policy.CodeSimulated},
		{"root", func(p *policy.Peer) { p.Root = policytest.Digest("other") }, policy.CodeRoot},
		{"no root", func(p *policy.Peer) { p.Root = "" }, policy.CodeRoot},
		{"measurement", func(p *policy.Peer) { p.Measurement = policytest.Hex(0xab, 48) }, policy.CodeMeasurement},
		{"no measurement", func(p *policy.Peer) { p.Measurement = "" }, policy.CodeMeasurement},
		{"host data", func(p *policy.Peer) { p.HostData = policytest.Hex(1, 32) }, policy.CodeHostData},
		{"host data any", func(p *policy.Peer) { p.HostData = policy.Any }, policy.CodeHostData},
		{"boot loader below the floor", func(p *policy.Peer) { p.TCB.BootLoader = 2 }, policy.CodeTCBFloor},
		{"firmware below the floor, microcode far above", func(p *policy.Peer) { p.TCB.SNP, p.TCB.Microcode = 7, 255 }, policy.CodeTCBFloor},
		{"machine", func(p *policy.Peer) { p.Machine = policytest.Hex(0xcd, 64) }, policy.CodeMachineUnpinned},
		{"no machine", func(p *policy.Peer) { p.Machine = "" }, policy.CodeMachineUnpinned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := policytest.Peer(f.Signed, policytest.Web)
			tt.edit(&p)
			wantDecision(t, f.Manifest.AcceptPeer(p, policytest.Now()), tt.code)
		})
	}
}

// A certificate issued under an older manifest is judged by the newer one.
func TestAcceptPeerFollowsTheCurrentManifest(t *testing.T) {
	f := policytest.New(t)
	p := policytest.Peer(f.Signed, policytest.Web)
	tests := []struct {
		name string
		edit func(m *policy.Manifest)
		code policy.Code
	}{
		{"nothing changed", nil, policy.CodeAllowed},
		{"a peer rule more", func(m *policy.Manifest) {
			m.Workloads[0].Peers.To[0].Ports = append(m.Workloads[0].Peers.To[0].Ports, 1)
		}, policy.CodeAllowed},
		{"image replaced", func(m *policy.Manifest) { m.Workloads[0].Images[0].Digest = policytest.Digest("new") }, policy.CodeWorkloadChanged},
		{"workload removed", func(m *policy.Manifest) {
			m.Workloads, m.Workloads[1].Peers.From = m.Workloads[1:], nil
		}, policy.CodeWorkloadUnlisted},
		{"measurement withdrawn", func(m *policy.Manifest) { m.Substrates[0].Measurements = []string{policytest.Hex(1, 48)} }, policy.CodeMeasurement},
		{"floor raised", func(m *policy.Manifest) { m.Substrates[0].SNP.MinTCB.Microcode = 200 }, policy.CodeTCBFloor},
		{"machines pinned", func(m *policy.Manifest) { m.Substrates[0].Machines = []string{policytest.Hex(1, 64)} }, policy.CodeMachineUnpinned},
		{"for production", func(m *policy.Manifest) {
			m.Production, m.Substrates[0].Simulated, m.Substrates[0].Collateral = true, false, required()
		}, policy.CodeSimulated},
		{"node role withdrawn", func(m *policy.Manifest) { m.Substrates[0].Roles = []policy.Role{policy.RoleCDS} }, policy.CodeRole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantDecision(t, f.Next(t, tt.edit).Manifest.AcceptPeer(p, policytest.Now()), tt.code)
		})
	}
}

// Facts spread over two substrates do not add up, and the refusal speaks of
// the substrate that was most likely meant.
func TestSubstratesDoNotAddUp(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		second := m.Substrates[0]
		second.Name, second.Product = "sim-genoa", policy.ProductGenoa
		second.Roots, second.Measurements = []policy.Digest{policytest.Digest("root2")}, []string{policytest.Hex(0xbb, 48)}
		m.Substrates = append(m.Substrates, second)
	}))
	facts := policytest.Facts()
	facts.Measurement = policytest.Hex(0xbb, 48)
	match := f.Manifest.AcceptSubstrate(policy.RoleNode, facts, policytest.Guest(), policytest.Now())
	wantDecision(t, match.Decision, policy.CodeMeasurement)
	if match.Substrate == nil || match.Substrate.Name != "sim-milan" {
		t.Errorf("nearest substrate = %+v, want sim-milan", match.Substrate)
	}
	facts.Product, facts.Root = policy.ProductGenoa, policytest.Digest("root2")
	match = f.Manifest.AcceptSubstrate(policy.RoleNode, facts, policytest.Guest(), policytest.Now())
	wantDecision(t, match.Decision, policy.CodeAllowed)
	if match.Substrate.Name != "sim-genoa" {
		t.Errorf("matched %s, want sim-genoa", match.Substrate.Name)
	}
}

func TestAcceptSubstrateReportsEveryRule(t *testing.T) {
	f := policytest.New(t)
	tests := []struct {
		name  string
		role  policy.Role
		facts func(f *policy.SubstrateFacts)
		guest policy.GuestFacts
		code  policy.Code
	}{
		{"good", policy.RoleNode, nil, policytest.Guest(), policy.CodeAllowed},
		{"good CDS", policy.RoleCDS, nil, policytest.Guest(), policy.CodeAllowed},
		{"measurement", policy.RoleNode, func(f *policy.SubstrateFacts) { f.Measurement = "" }, policytest.Guest(), policy.CodeMeasurement},
		{"debug", policy.RoleNode, nil, guest(func(g *policy.GuestFacts) { g.Debug = true }), policy.CodeDebug},
		{"migration", policy.RoleNode, nil, guest(func(g *policy.GuestFacts) { g.Migration = true }), policy.CodeMigration},
		{"SMT", policy.RoleNode, nil, guest(func(g *policy.GuestFacts) { g.SMT = true }), policy.CodeSMT},
		{"VMPL", policy.RoleNode, nil, guest(func(g *policy.GuestFacts) { g.VMPL = 1 }), policy.CodeVMPL},
		{"role", policy.RoleIngress, nil, policytest.Guest(), policy.CodeRole},
		{"workload on a node's substrate", policy.RoleWorkload, nil, policytest.Guest(), policy.CodeRole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			facts := policytest.Facts()
			if tt.facts != nil {
				tt.facts(&facts)
			}
			match := f.Manifest.AcceptSubstrate(tt.role, facts, tt.guest, policytest.Now())
			wantDecision(t, match.Decision, tt.code)
			if tt.code == policy.CodeRole {
				return
			}
			var ids []policy.Code
			for _, r := range match.Rules {
				ids = append(ids, policy.Code(r.ID))
			}
			if want := policy.SubstrateRules(policy.TEESEVSNP); !slices.Equal(ids, want) {
				t.Errorf("the rules are %v, want %v", ids, want)
			}
			for _, r := range match.Rules {
				if r.ID == "" || r.Rule == "" || r.Expected == "" || r.Actual == "" || r.Allowed == (r.ID == string(tt.code)) {
					t.Errorf("rule %+v", r)
				}
			}
		})
	}
}

func TestGuestPermissionsAreTakenFromTheManifest(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].SNP.Guest = policy.SNPGuest{AllowDebug: true, AllowMigration: true, AllowSMT: true, VMPL: 2}
	}))
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleNode, policytest.Facts(), guest(func(g *policy.GuestFacts) { g.Debug, g.Migration, g.SMT, g.VMPL = true, true, true, 2 }), policytest.Now()).Decision, policy.CodeAllowed)
	// What is permitted is not demanded; the privilege level is exact.
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleNode, policytest.Facts(), guest(func(g *policy.GuestFacts) { g.VMPL = 2 }), policytest.Now()).Decision, policy.CodeAllowed)
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleNode, policytest.Facts(), policytest.Guest(), policytest.Now()).Decision, policy.CodeVMPL)
}

func TestAllowingAllocatesNothing(t *testing.T) {
	f := policytest.New(t)
	p := policytest.Peer(f.Signed, policytest.Web)
	if n := testing.AllocsPerRun(100, func() { f.Manifest.AcceptPeer(p, policytest.Now()) }); n != 0 {
		t.Errorf("AcceptPeer allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { f.Manifest.PeerAllowed(policytest.Web, policytest.DB, policy.ProtocolTCP, policytest.DBPort) }); n != 0 {
		t.Errorf("PeerAllowed allocates %v times", n)
	}
}

// large has a manifest of many workloads in a ring and several substrates.
func large(b *testing.B) *policytest.Fixture {
	const workloads, substrates = 1000, 8
	return policytest.New(b, policytest.With(func(m *policy.Manifest) {
		name := func(i int) string { return fmt.Sprintf("w%d", i%workloads) }
		rule := func(i int) []policy.PeerRule {
			return []policy.PeerRule{{Workload: name(i), Ports: []uint16{80, 443, 8080}, Protocol: policy.ProtocolTCP}}
		}
		m.Workloads = nil
		for i := range workloads {
			m.Workloads = append(m.Workloads, policy.Workload{
				Name: name(i), Images: []policy.Image{{Name: name(i), Digest: policytest.Digest(name(i))}},
				Peers: policy.Peers{To: rule(i + 1), From: rule(i + workloads - 1)},
			})
		}
		last := m.Substrates[0]
		m.Substrates = nil
		for i := range substrates - 1 {
			s := last
			s.Name, s.Measurements = fmt.Sprintf("s%d", i), []string{policytest.Hex(byte(i), 48)}
			m.Substrates = append(m.Substrates, s)
		}
		m.Substrates = append(m.Substrates, last)
	}))
}

func BenchmarkPeerAllowed(b *testing.B) {
	m := large(b).Manifest
	b.ReportAllocs()
	for b.Loop() {
		if !m.PeerAllowed("w500", "w501", policy.ProtocolTCP, 443).Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkAcceptPeer(b *testing.B) {
	f := large(b)
	p := policytest.Peer(f.Signed, "w500")
	b.ReportAllocs()
	for b.Loop() {
		if !f.Manifest.AcceptPeer(p, policytest.Now()).Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	m := large(b).Manifest
	p := policy.PodFacts{Images: []policy.Digest{policytest.Digest("w500")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, d := m.Admit(p); !d.Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkParse(b *testing.B) {
	payload := large(b).Payload
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := policy.Parse(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	f := policytest.New(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Open(f.Envelope, f.Operators); err != nil {
			b.Fatal(err)
		}
	}
}
