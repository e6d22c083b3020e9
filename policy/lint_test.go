// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// clean edits the sample so that Lint finds nothing.
func clean(m *policy.Manifest) {
	s := &m.Substrates[0]
	s.Simulated, s.Machines, s.HostData, s.Collateral = false, []string{policytest.Hex(0xcc, 64)}, []string{policytest.Hex(7, 32)}, required()
	s.SNP.MinLaunchTCB = &policy.TCB{BootLoader: 3, SNP: 8, Microcode: 115}
	s.Roles = []policy.Role{policy.RoleNode}
	m.Sandboxes = []policy.Image{{Name: "pause", Digest: policytest.Digest("pause")}}
	for i := range m.Workloads {
		m.Workloads[i].Namespaces, m.Workloads[i].HostAccess = []string{"prod"}, false
	}
	// Each may connect to the other.
	m.Workloads[0].Peers.From = []policy.PeerRule{{Workload: policytest.DB, Ports: []uint16{80}, Protocol: policy.ProtocolTCP}}
	m.Workloads[1].Peers.To = []policy.PeerRule{{Workload: policytest.Web, Ports: []uint16{80}, Protocol: policy.ProtocolTCP}}
}

type lintCase struct {
	name string
	edit func(m *policy.Manifest)
	want []string // "code path severity"
}

func lintCases(t *testing.T) []lintCase {
	aa, bb := policytest.Hex(0xaa, 48), policytest.Hex(0xbb, 48)
	web, db := policytest.Digest(policytest.Web), policytest.Digest(policytest.DB)
	expires := func(until string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			m.Substrates[0].Measurements, m.Substrates[0].Expires = []string{aa, bb}, map[string]string{aa: until}
		}
	}
	tdx := func(edit func(s *policy.Substrate)) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			s := policytest.TDXSubstrate()
			s.Machines, s.Registers["rtmr0"] = []string{policytest.Hex(0xdd, 16)}, []string{policytest.Hex(9, 48)}
			edit(&s)
			m.Substrates = append(m.Substrates, s)
		}
	}
	second := func(edit func(s *policy.Substrate)) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			s := m.Substrates[0]
			snp := *s.SNP
			s.Name, s.SNP = "second", &snp
			edit(&s)
			m.Substrates = append(m.Substrates, s)
		}
	}
	share := func(namespaces ...string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			m.Workloads[1].Images = append(m.Workloads[1].Images, policy.Image{Name: "web", Digest: web})
			m.Workloads[1].Namespaces = namespaces
		}
	}
	image := func(name string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) { m.Workloads[0].Images[0].Name = name }
	}
	const sim, named = "substrates[sim-milan]", "workloads[web].images["
	return []lintCase{
		{"nothing", func(*policy.Manifest) {}, nil},
		{"good trust domain", tdx(func(*policy.Substrate) {}), nil},
		{"one operator", func(m *policy.Manifest) { m.Production, m.Recovery = true, recoveryOf(t, 2, 3) }, []string{"one-operator operators.threshold warning"}},
		{"no recovery", func(m *policy.Manifest) { m.Production = true }, []string{"one-operator operators.threshold warning", "no-recovery recovery warning"}},
		{"no quorum", func(m *policy.Manifest) { m.Witnesses = []policy.Witness{witnessOf(t, "w1", 1)} }, []string{"no-witness-quorum witnessQuorum warning"}},
		{"simulated", func(m *policy.Manifest) { m.Substrates[0].Simulated = true }, []string{"simulated-substrate " + sim + ".simulated warning"}},
		{"any machine", func(m *policy.Manifest) { m.Substrates[0].Machines = []string{policy.Any} }, []string{"any-machine " + sim + ".machines warning"}},
		{"any host data", func(m *policy.Manifest) { m.Substrates[0].HostData = []string{policy.Any} }, []string{"any-host-data " + sim + ".hostData warning"}},
		{"any register", tdx(func(s *policy.Substrate) { s.Registers["rtmr1"] = []string{policy.Any} }), []string{"any-register substrates[tdx].registers.rtmr1 warning"}},
		{"any advisory", tdx(func(s *policy.Substrate) { s.TDX.Advisories = []string{policy.Any} }), []string{"any-advisory substrates[tdx].tdx.advisories warning"}},
		{"unchecked", func(m *policy.Manifest) { m.Substrates[0].Collateral.Use = policy.CollateralUnchecked }, []string{"collateral-unchecked " + sim + ".collateral.use error"}},
		{"unchecked and simulated", func(m *policy.Manifest) {
			m.Substrates[0].Collateral.Use, m.Substrates[0].Simulated = policy.CollateralUnchecked, true
		}, []string{"simulated-substrate " + sim + ".simulated warning", "collateral-unchecked " + sim + ".collateral.use info"}},
		{"debug", func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.AllowDebug = true }, []string{"debug-allowed " + sim + ".snp.guest.allowDebug error"}},
		{"migration", tdx(func(s *policy.Substrate) { s.TDX.Guest.AllowMigration = true }), []string{"migration-allowed substrates[tdx].tdx.guest.allowMigration warning"}},
		{"no floor", func(m *policy.Manifest) { m.Substrates[0].SNP.MinTCB.Microcode = 0 }, []string{"floor-missing " + sim + ".snp.minTCB warning"}},
		{"no launch floor", func(m *policy.Manifest) { m.Substrates[0].SNP.MinLaunchTCB = &policy.TCB{} }, []string{"floor-missing " + sim + ".snp.minLaunchTCB warning"}},
		{"no evaluation", tdx(func(s *policy.Substrate) { s.TDX.MinEvaluationNumber = 0 }), []string{"floor-missing substrates[tdx].tdx.minEvaluationNumber warning"}},
		{"lower floor elsewhere", second(func(s *policy.Substrate) { s.SNP.MinTCB = &policy.TCB{BootLoader: 3, SNP: 7, Microcode: 200} }), []string{
			"floor-bypassed " + sim + ".snp.minTCB.snp warning", "floor-bypassed substrates[second].snp.minTCB.microcode warning",
		}},
		{"lower floor for another machine", second(func(s *policy.Substrate) {
			s.Machines, s.SNP.MinTCB = []string{policytest.Hex(1, 64)}, &policy.TCB{BootLoader: 3, SNP: 7, Microcode: 115}
		}), nil},
		{"lower floor for another image", second(func(s *policy.Substrate) {
			s.Measurements, s.SNP.MinTCB = []string{bb}, &policy.TCB{BootLoader: 3, SNP: 7, Microcode: 115}
		}), nil},
		{"lower floor for another role", second(func(s *policy.Substrate) {
			s.Roles, s.SNP.MinTCB = []policy.Role{policy.RoleWorkload}, &policy.TCB{BootLoader: 3, SNP: 7, Microcode: 115}
		}), nil},
		{"shared measurement", func(m *policy.Manifest) { m.Substrates[0].Roles = []policy.Role{policy.RoleNode, policy.RoleCDS} }, []string{"shared-measurement " + sim + ".measurements[" + aa + "] warning"}},
		{"measurement of the CDS alone", second(func(s *policy.Substrate) { s.Roles, s.Measurements = []policy.Role{policy.RoleCDS}, []string{bb} }), nil},
		{"expired", expires("2026-07-01T12:00:00Z"), []string{"value-expired " + sim + ".expires[" + aa + "] warning"}},
		{"expires soon", expires("2026-07-15T12:00:00Z"), []string{"value-expires-soon " + sim + ".expires[" + aa + "] warning"}},
		{"expires later", expires("2026-07-15T12:00:01Z"), nil},
		{"nothing left soon", func(m *policy.Manifest) {
			m.Substrates[0].Expires = map[string]string{aa: "2026-07-15T12:00:00Z"}
		}, []string{"value-expires-soon " + sim + ".expires[" + aa + "] warning", "nothing-left " + sim + ".measurements error"}},
		{"nothing left later", func(m *policy.Manifest) { m.Substrates[0].Expires = map[string]string{aa: nextYear} }, []string{"nothing-left " + sim + ".measurements warning"}},
		{"shared image", share("prod"), []string{"shared-image " + named + string(web) + "] warning"}},
		{"shared image in another namespace", share("other"), []string{"shared-image " + named + string(web) + "] info"}},
		{"latest", image("registry:5000/web:latest"), []string{"image-tag " + named + string(web) + "].name warning"}},
		{"tag", image("registry:5000/web:1.2"), []string{"image-tag " + named + string(web) + "].name info"}},
		{"port without a tag", image("registry:5000/web"), nil},
		{"tag and digest", image("web:1.2@" + string(web)), nil},
		{"another digest", image("web@" + string(db)), []string{"image-name-contradicts " + named + string(web) + "].name info"}},
		{"dead egress", func(m *policy.Manifest) {
			m.Workloads[0].Peers.To[0].Ports = []uint16{policytest.DBPort, 1, 2}
		}, []string{"dead-rule workloads[web].peers.to[db] warning"}},
		{"dead ingress", func(m *policy.Manifest) { m.Workloads[0].Peers.To = nil }, []string{
			"dead-rule workloads[db].peers.from[web] warning", "workload-unreachable workloads[db].peers.from info",
		}},
		{"every namespace", func(m *policy.Manifest) { m.Workloads[0].Namespaces = nil }, []string{"every-namespace workloads[web].namespaces info"}},
		{"host access", func(m *policy.Manifest) { m.Workloads[1].HostAccess = true }, []string{"host-access workloads[db].hostAccess info"}},
	}
}

// runCases are about what containers may be started with.
func runCases(t *testing.T) []lintCase {
	alice, bob := signerOf(t, "alice"), signerOf(t, "bob")
	web := "workloads[web].images[" + string(policytest.Digest(policytest.Web)) + "].run"
	run := func(r policy.Run) func(m *policy.Manifest) {
		return func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &r }
	}
	strict := "strict"
	return []lintCase{
		{"harmless run", run(policy.Run{
			Args: []string{"/web"}, Env: []policy.EnvRule{{Name: "PATH", Value: &strict}}, ServiceEnv: true, User: "1:1",
			Mounts: []policy.MountRule{{Destination: "/tmp", Source: policy.MountEmptyDir}}, Capabilities: []string{"SYS_NICE"},
		}), nil},
		{"no sandbox", func(m *policy.Manifest) { m.Sandboxes = nil }, []string{"no-sandbox sandboxes info"}},
		{"any args", run(policy.Run{Args: []string{policy.Any}}), []string{"any-args " + web + ".args warning"}},
		{"any env", run(policy.Run{Env: []policy.EnvRule{{Name: "MODE", Any: true}}}), []string{"any-env " + web + ".env info"}},
		{"env that loads code", run(policy.Run{Env: []policy.EnvRule{{Name: "LD_PRELOAD", Any: true}}}), []string{"any-env " + web + ".env[LD_PRELOAD] warning"}},
		{"path of the node", run(policy.Run{Mounts: []policy.MountRule{{Destination: "/host", Source: "/", ReadOnly: true}}}), []string{"host-path " + web + ".mounts[/host] warning"}},
		{"privileged", run(policy.Run{Privileged: true}), []string{"privileged " + web + ".privileged warning"}},
		{"namespace of the node", run(policy.Run{HostNamespaces: []string{"pid"}}), []string{"host-namespace " + web + ".hostNamespaces warning"}},
		{"sockets", run(policy.Run{Sockets: []string{"raw"}}), []string{"sockets " + web + ".sockets warning"}},
		{"stdin", run(policy.Run{Stdin: true}), []string{"stdin " + web + ".stdin warning"}},
		{"exec", func(m *policy.Manifest) { m.Workloads[0].Exec = []policy.Exec{{Args: []string{"/probe"}}} }, nil},
		{"any exec", func(m *policy.Manifest) { m.Workloads[0].Exec = []policy.Exec{{Args: []string{policy.Any}}} }, []string{"exec workloads[web].exec warning"}},
		{"exec with a terminal", func(m *policy.Manifest) { m.Workloads[0].Exec = []policy.Exec{{Args: []string{"/sh"}, TTY: true}} }, []string{`exec workloads[web].exec[["/sh"]] warning`}},
		{"outside the mesh", func(m *policy.Manifest) {
			m.Workloads = append(m.Workloads, policy.Workload{Name: "cni", Images: []policy.Image{{Name: "cni", Digest: policytest.Digest("cni")}}, Namespaces: []string{"kube-system"}, HostNetwork: true, Bootstrap: true})
		}, []string{"node-network workloads[cni].hostNetwork info"}},
		{"outside the mesh, with peers", func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, []string{"node-network workloads[web].hostNetwork warning"}},
		{"signed", func(m *policy.Manifest) {
			m.Signers, m.Workloads[0].Images = []policy.Signer{alice}, []policy.Image{{Name: "w", Signers: []string{"alice"}, Repository: "example.org/w"}}
		}, nil},
		{"signed by any of two as anything", func(m *policy.Manifest) {
			m.Signers, m.Workloads[0].Images = []policy.Signer{alice, bob}, []policy.Image{{Name: "w", Signers: []string{"alice", "bob"}}}
		}, []string{"any-key workloads[web].images[signed by alice or bob].signers warning", "any-repository workloads[web].images[signed by alice or bob].repository warning"}},
		{"unused signer", func(m *policy.Manifest) { m.Signers = []policy.Signer{alice} }, []string{"unused-signer signers[alice] info"}},
	}
}

func TestLintFindsEachByItself(t *testing.T) {
	found := map[string]bool{}
	for _, c := range slices.Concat(lintCases(t), runCases(t), outsideCases(), ingressCases()) {
		t.Run(c.name, func(t *testing.T) {
			m := policytest.New(t, policytest.With(clean), policytest.With(c.edit)).Manifest
			var got []string
			for _, f := range policy.Lint(m, policytest.Now()) {
				got = append(got, fmt.Sprint(f.Code, " ", f.Path, " ", f.Severity))
				found[string(f.Code)] = true
				if f.Message == "" || f.Remedy == "" || !strings.Contains(f.String(), f.Message) {
					t.Errorf("it is not explained: %+v", f)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Lint\w+ +Code = "([a-z-]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 24 {
		t.Errorf("only %d codes were found in the source", len(codes))
	}
	for _, code := range codes {
		if !found[string(code[1])] {
			t.Errorf("no case finds %s", code[1])
		}
	}
}

func TestLintIsDeterministic(t *testing.T) {
	m := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		tdx := policytest.TDXSubstrate()
		tdx.Expires = map[string]string{policytest.Hex(1, 48): nextYear, policytest.Hex(2, 48): nextYear, policytest.Hex(3, 48): nextYear}
		m.Substrates = append(m.Substrates, tdx)
		m.Workloads[1].Images = append(m.Workloads[1].Images, m.Workloads[0].Images...)
	})).Manifest
	first := policy.Lint(m, policytest.Now())
	if len(first) < 10 {
		t.Errorf("only %d findings", len(first))
	}
	for range 20 {
		if again := policy.Lint(m, policytest.Now()); !slices.Equal(first, again) {
			t.Fatalf("found %v, then %v", first, again)
		}
	}
}

func TestLintOfWhatWasNotParsed(t *testing.T) {
	for _, m := range []*policy.Manifest{nil, {}} {
		if f := policy.Lint(m, time.Time{}); len(f) != 1 || f[0].Code != policy.CodeUndecided || f[0].Severity != policy.SeverityError {
			t.Errorf("found %v", f)
		}
	}
}
