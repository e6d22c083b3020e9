// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func outcomes(list []policy.Impact) []string {
	got := []string{}
	for _, i := range list {
		got = append(got, strings.TrimSpace(fmt.Sprint(i.Path, " ", i.Outcome, " ", strings.Trim(fmt.Sprint(i.Roles), "[]"))))
	}
	return got
}

func TestAffectedSaysWhatStops(t *testing.T) {
	aa, bb, cc := policytest.Hex(0xaa, 48), policytest.Hex(0xbb, 48), policytest.Hex(0xcc, 64)
	web, db := string(policytest.Digest(policytest.Web)), string(policytest.Digest(policytest.DB))
	const sim = "substrates[sim-milan]"
	image, alice := "workloads[web].images["+web+"]", signerOf(t, "alice")
	run := func(r policy.Run) func(m *policy.Manifest) {
		return func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &r }
	}
	changed := func(paths ...string) []string {
		want := []string{"workloads[web] re-enrols"}
		for _, p := range paths {
			want = append(want, p+" stops")
		}
		return want
	}
	one, two := "1", "2"
	for name, c := range map[string]struct {
		before, edit func(m *policy.Manifest) // before: edits both
		want         []string
	}{
		"nothing changes": {nil, nil, []string{}},
		"everything widens": {nil, func(m *policy.Manifest) {
			s := &m.Substrates[0]
			s.Measurements, s.SNP.MinTCB.SNP, s.SNP.Guest.AllowSMT = append(s.Measurements, bb), 1, true
			s.Roles = append(s.Roles, policy.RoleIngress)
			m.Workloads = append(m.Workloads, policy.Workload{Name: "new", Images: []policy.Image{{Name: "n", Digest: policytest.Digest("n")}}})
		}, []string{}},
		"measurement": {nil, func(m *policy.Manifest) { m.Substrates[0].Measurements = []string{bb} }, []string{sim + ".measurements[" + aa + "] stops node cds"}},
		"machine": {
			func(m *policy.Manifest) { m.Substrates[0].Machines = []string{cc, policytest.Hex(1, 64)} },
			func(m *policy.Manifest) { m.Substrates[0].Machines = []string{policytest.Hex(1, 64)} },
			[]string{sim + ".machines[" + cc + "] stops node cds"},
		},
		"floor":  {nil, func(m *policy.Manifest) { m.Substrates[0].SNP.MinTCB.SNP++ }, []string{sim + ".snp.minTCB.snp stops node cds"}},
		"guest":  {nil, func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.RequireSingleSocket = true }, []string{sim + ".snp.guest.requireSingleSocket renewal node cds"}},
		"expiry": {nil, func(m *policy.Manifest) { m.Substrates[0].Expires = map[string]string{aa: nextYear} }, []string{sim + ".expires[" + aa + "] expires node cds"}},
		"expired at once": {nil, func(m *policy.Manifest) {
			m.Substrates[0].Measurements, m.Substrates[0].Expires = []string{aa, bb}, map[string]string{aa: "2026-01-01T00:00:00Z"}
		}, []string{sim + ".measurements[" + aa + "] stops node cds"}},
		"all expired": {nil, func(m *policy.Manifest) { m.Substrates[0].Expires = map[string]string{aa: "2026-01-01T00:00:00Z"} }, []string{sim + " stops node cds"}},
		"had expired": {
			func(m *policy.Manifest) {
				m.Substrates[0].Measurements, m.Substrates[0].Expires = []string{aa, bb}, map[string]string{bb: "2026-01-01T00:00:00Z"}
			},
			func(m *policy.Manifest) { m.Substrates[0].Measurements, m.Substrates[0].Expires = []string{aa}, nil },
			[]string{},
		},
		"role":    {nil, func(m *policy.Manifest) { m.Substrates[0].Roles = []policy.Role{policy.RoleNode} }, []string{sim + " stops cds"}},
		"real":    {nil, func(m *policy.Manifest) { m.Substrates[0].Simulated = false }, []string{sim + " stops node cds"}},
		"renamed": {nil, func(m *policy.Manifest) { m.Substrates[0].Name = "other" }, []string{}},
		"split": {
			func(m *policy.Manifest) { m.Substrates[0].Measurements = []string{aa, bb} },
			func(m *policy.Manifest) {
				second := m.Substrates[0]
				m.Substrates[0].Measurements = []string{aa}
				second.Name, second.Measurements = "second", []string{bb}
				m.Substrates = append(m.Substrates, second)
			},
			[]string{sim + ".measurements[" + bb + "] may-stop node cds"},
		},
		"split, and one is gone": {
			func(m *policy.Manifest) { m.Substrates[0].Measurements = []string{aa, bb, policytest.Hex(1, 48)} },
			func(m *policy.Manifest) {
				second := m.Substrates[0]
				m.Substrates[0].Measurements = []string{aa}
				second.Name, second.Measurements = "second", []string{bb}
				m.Substrates = append(m.Substrates, second)
			},
			[]string{sim + ".measurements[" + bb + "] may-stop node cds", sim + ".measurements[" + policytest.Hex(1, 48) + "] stops node cds"},
		},
		"workload": {nil, func(m *policy.Manifest) {
			m.Workloads, m.Workloads[1].Peers.From = m.Workloads[1:], nil
		}, []string{"workloads[web] stops"}},
		"image": {nil, func(m *policy.Manifest) { m.Workloads[0].Images[0].Digest = policytest.Digest("new") }, []string{"workloads[web] re-enrols", "workloads[web].images[" + web + "] stops"}},
		"image more": {nil, func(m *policy.Manifest) {
			m.Workloads[1].Images = append(m.Workloads[1].Images, policy.Image{Name: "n", Digest: policytest.Digest("n")})
		}, []string{"workloads[db] re-enrols"}},
		"namespaces":      {nil, func(m *policy.Manifest) { m.Workloads[1].Namespaces = []string{"prod"} }, []string{"workloads[db] re-enrols", "workloads[db].namespaces stops"}},
		"host access":     {nil, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false }, []string{"workloads[web].hostAccess stops"}},
		"acceptor's rule": {nil, func(m *policy.Manifest) { m.Workloads[1].Peers.From = nil }, []string{"workloads[web].peers.to[db] stops"}},
		"opener's port":   {nil, func(m *policy.Manifest) { m.Workloads[0].Peers.To[0].Ports = []uint16{1} }, []string{"workloads[web].peers.to[db] stops"}},
		"one-sided rule removed": {
			func(m *policy.Manifest) { m.Workloads[0].Peers.To[0].Ports = []uint16{1, policytest.DBPort} },
			func(m *policy.Manifest) { m.Workloads[0].Peers.To[0].Ports = []uint16{policytest.DBPort} },
			[]string{},
		},
		"another command line": {nil, run(policy.Run{Args: []string{"/web"}}), changed(image + ".run.args")},
		"any command line":     {nil, run(policy.Run{Args: []string{policy.Any}}), changed()},
		"one variable more":    {nil, run(policy.Run{Env: []policy.EnvRule{{Name: "A", Any: true}}}), changed()},
		"a demanded variable":  {nil, run(policy.Run{Env: []policy.EnvRule{{Name: "A", Value: &one}}}), changed(image + ".run.env[A]")},
		"another value": {
			run(policy.Run{Env: []policy.EnvRule{{Name: "A", Value: &one}}}), run(policy.Run{Env: []policy.EnvRule{{Name: "A", Value: &two}}}),
			changed(image + ".run.env[A]"),
		},
		"fewer privileges": {run(policy.Run{Privileged: true, Stdin: true}), run(policy.Run{}), changed(image+".run.privileged", image+".run.stdin")},
		"read-only": {
			run(policy.Run{Mounts: []policy.MountRule{{Destination: "/a", Source: "csi"}}}),
			run(policy.Run{Mounts: []policy.MountRule{{Destination: "/a", Source: "csi", ReadOnly: true}}}), changed(image + ".run.mounts[/a].readOnly"),
		},
		"into the node's network": {nil, func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, changed("workloads[web].hostNetwork")},
		"no exec": {
			func(m *policy.Manifest) { m.Workloads[0].Exec = []policy.Exec{{Args: []string{"/a"}}} },
			func(m *policy.Manifest) { m.Workloads[0].Exec = nil }, changed(`workloads[web].exec[["/a"]]`),
		},
		"another probe": {
			func(m *policy.Manifest) { m.Workloads[0].HostAccess, m.Workloads[0].Probes = false, []uint16{1} },
			func(m *policy.Manifest) { m.Workloads[0].Probes = []uint16{2} },
			[]string{"workloads[web].probes[1] stops"},
		},
		"no bootstrap": {
			func(m *policy.Manifest) { m.Workloads[0].HostNetwork, m.Workloads[0].Bootstrap = true, true },
			func(m *policy.Manifest) { m.Workloads[0].Bootstrap = false },
			[]string{"workloads[web].bootstrap stops"},
		},
		"sandbox": {
			func(m *policy.Manifest) {
				m.Sandboxes = []policy.Image{{Name: "pause", Digest: policytest.Digest("pause")}}
			},
			func(m *policy.Manifest) { m.Sandboxes = nil },
			[]string{"sandboxes[" + string(policytest.Digest("pause")) + "] stops"},
		},
		"another key of the same name": {
			func(m *policy.Manifest) {
				m.Signers, m.Workloads[0].Images = []policy.Signer{alice}, []policy.Image{{Name: "w", Signers: []string{"alice"}}}
			},
			func(m *policy.Manifest) { m.Signers = []policy.Signer{signerOf(t, "alice")} }, changed("workloads[web].images[signed by alice].signers"),
		},
		"both images": {nil, func(m *policy.Manifest) {
			m.Workloads[0].Images[0].Digest, m.Workloads[1].Images[0].Digest = policytest.Digest("x"), policytest.Digest("y")
		}, []string{
			"workloads[web] re-enrols", "workloads[web].images[" + web + "] stops",
			"workloads[db] re-enrols", "workloads[db].images[" + db + "] stops",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var opts []policytest.Option
			if c.before != nil {
				opts = append(opts, policytest.With(c.before))
			}
			f := policytest.New(t, opts...)
			got := policy.Affected(f.Manifest, f.Next(t, c.edit).Manifest, policytest.Now())
			if !slices.Equal(outcomes(got), c.want) {
				t.Errorf("affected:\n%s\nwant:\n%s", strings.Join(outcomes(got), "\n"), strings.Join(c.want, "\n"))
			}
			for _, i := range got {
				if i.Why == "" || i.Before == "" && i.After == "" {
					t.Errorf("it is not explained: %+v", i)
				}
			}
		})
	}
}

// Where Affected says nothing of machines, whoever was accepted still is.
func TestAffectedKnowsOfEveryRefusal(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = append(m.Substrates, policytest.TDXSubstrate()) }))
	facts := map[string]policy.SubstrateFacts{policy.TEESEVSNP: policytest.Facts(), policy.TEETDX: policytest.TDXFacts()}
	edits := map[string]func(s *policy.Substrate){
		"root": func(s *policy.Substrate) { s.Roots = []policy.Digest{policytest.Digest("new")} },
		"machine": func(s *policy.Substrate) {
			s.Machines = []string{map[string]string{"sev-snp": policytest.Hex(1, 64), "tdx": policytest.Hex(1, 16)}[s.TEE]}
		},
		"measure": func(s *policy.Substrate) { s.Measurements = []string{policytest.Hex(1, 48)} },
		"host data": func(s *policy.Substrate) {
			s.HostData = []string{map[string]string{"sev-snp": policytest.Hex(1, 32), "tdx": policytest.Hex(1, 48)}[s.TEE]}
		},
		"floor": func(s *policy.Substrate) {
			if s.SNP != nil {
				s.SNP.MinTCB.Microcode = 200
			} else {
				s.TDX.MinEvaluationNumber = 30
			}
		},
		"advisories": func(s *policy.Substrate) {
			if s.TDX != nil {
				s.TDX.Advisories = []string{policy.None}
			}
		},
		"status": func(s *policy.Substrate) {
			if s.TDX != nil {
				s.TDX.Statuses = []string{"UpToDate"}
			}
		},
		"register": func(s *policy.Substrate) {
			if s.TDX != nil {
				s.Registers["rtmr2"] = []string{policytest.Hex(2, 48)}
			}
		},
		"collateral": func(s *policy.Substrate) { s.Collateral = required() },
		"role":       func(s *policy.Substrate) { s.Roles = []policy.Role{policy.RoleIngress} },
		"kind":       func(s *policy.Substrate) { s.Simulated = !s.Simulated },
		"nothing":    func(*policy.Substrate) {},
	}
	refused := 0
	for name, edit := range edits {
		for i := range 2 {
			next := f.Next(t, func(m *policy.Manifest) { edit(&m.Substrates[i]) })
			silent := len(policy.Affected(f.Manifest, next.Manifest, policytest.Now())) == 0
			peer := policytest.Peer(f.Signed, policytest.Web)
			peer.SubstrateFacts = facts[f.Manifest.Substrates[i].TEE]
			wantDecision(t, f.Manifest.AcceptPeer(peer, policytest.Now()), policy.CodeAllowed)
			d := next.Manifest.AcceptPeer(peer, policytest.Now())
			if !d.Allowed && silent {
				t.Errorf("%s of substrate %d: nothing is said of %v", name, i, d)
			}
			if !d.Allowed {
				refused++
			}
		}
	}
	if refused < 18 {
		t.Errorf("only %d of the changes stop the machine", refused)
	}
}

func TestAffectedWithoutAManifest(t *testing.T) {
	f := policytest.New(t)
	if got := policy.Affected(nil, f.Manifest, policytest.Now()); got != nil {
		t.Errorf("the first manifest stops %v", got)
	}
	for name, next := range map[string]*policy.Manifest{"nothing": nil, "by hand": {Workloads: f.Manifest.Workloads, Substrates: f.Manifest.Substrates}} {
		if got := policy.Affected(f.Manifest, next, policytest.Now()); len(got) != 1 || got[0].Outcome != policy.Stops {
			t.Errorf("%s: %v", name, got)
		}
	}
}
