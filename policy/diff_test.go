// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestDiffSaysWhatWidensAndNarrows(t *testing.T) {
	h48, machine := policytest.Hex(1, 48), policytest.Hex(2, 64)
	pcr := policytest.Hex(4, 32)
	tests := []struct {
		name         string
		edit         func(m *policy.Manifest)
		path         string
		effect, back policy.Effect // and when undone
	}{
		{"production", func(m *policy.Manifest) {
			m.Production, m.Substrates[0].Simulated, m.Substrates[0].Collateral = true, false, required()
		}, "production", policy.Narrows, policy.Widens},
		{"paravisor", func(m *policy.Manifest) {
			m.Substrates[0].Paravisor, m.Substrates[0].Registers = policy.ParavisorAzure, map[string][]string{"pcr4": {pcr}}
		}, "substrates[sim-milan].paravisor", policy.Changes, policy.Changes},
		{"register", func(m *policy.Manifest) {
			m.Substrates[0].Paravisor, m.Substrates[0].Registers = policy.ParavisorAzure, map[string][]string{"pcr4": {pcr}}
		}, "substrates[sim-milan].registers.pcr4", policy.Changes, policy.Changes},
		{"launch TCB", func(m *policy.Manifest) { m.Substrates[0].SNP.MinLaunchTCB.SNP++ }, "substrates[sim-milan].snp.minLaunchTCB.snp", policy.Narrows, policy.Widens},
		{"provisional", func(m *policy.Manifest) { m.Substrates[0].SNP.AllowProvisional = true }, "substrates[sim-milan].snp.allowProvisional", policy.Widens, policy.Narrows},
		{"signing key", func(m *policy.Manifest) { m.Substrates[0].SNP.SigningKey = policy.SigningKeyVLEK }, "substrates[sim-milan].snp.signingKey", policy.Changes, policy.Changes},
		{"guest SVN", func(m *policy.Manifest) { m.Substrates[0].SNP.MinGuestSVN = 1 }, "substrates[sim-milan].snp.minGuestSVN", policy.Narrows, policy.Widens},
		{"ID key", func(m *policy.Manifest) { m.Substrates[0].SNP.IDKeys = []string{policy.Any} }, "substrates[sim-milan].snp.idKeys", policy.Widens, policy.Narrows},
		{"author key", func(m *policy.Manifest) {
			m.Substrates[0].SNP.AuthorKeys = append(m.Substrates[0].SNP.AuthorKeys, h48)
		}, "substrates[sim-milan].snp.authorKeys[" + h48 + "]", policy.Widens, policy.Narrows},
		{"platform", func(m *policy.Manifest) { m.Substrates[0].SNP.RequirePlatform = []string{policy.PlatformECC} }, "substrates[sim-milan].snp.requirePlatform[ecc]", policy.Narrows, policy.Widens},
		{"socket", func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.RequireSingleSocket = true }, "substrates[sim-milan].snp.guest.requireSingleSocket", policy.Narrows, policy.Widens},
		{"ABI", func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.MinABI.Major = 1 }, "substrates[sim-milan].snp.guest.minABI", policy.Narrows, policy.Widens},
		{"collateral", func(m *policy.Manifest) { m.Substrates[0].Collateral = required() }, "substrates[sim-milan].collateral.use", policy.Narrows, policy.Widens},
		{"collateral's age", func(m *policy.Manifest) { m.Substrates[0].Collateral.MaxAgeDays = 9 }, "substrates[sim-milan].collateral.maxAgeDays", policy.Widens, policy.Narrows},
		{"time lock", func(m *policy.Manifest) { m.NotBefore = nextYear }, "notBefore", policy.Changes, policy.Changes},
		{"expiry", func(m *policy.Manifest) {
			m.Substrates[0].Expires = map[string]string{policytest.Hex(0xaa, 48): nextYear}
		}, "substrates[sim-milan].expires[" + policytest.Hex(0xaa, 48) + "]", policy.Narrows, policy.Widens},
		{"recovery", func(m *policy.Manifest) { m.Recovery = recoveryOf(t, 2, 3) }, "recovery", policy.Widens, policy.Narrows},
		{"witness", func(m *policy.Manifest) {
			m.Witnesses = []policy.Witness{witnessOf(t, "w1", 1)}
		}, "witnesses[" + exampleWitness + "]", policy.Widens, policy.Narrows},
		{"quorum", func(m *policy.Manifest) {
			m.Witnesses, m.WitnessQuorum = []policy.Witness{witnessOf(t, "w1", 1)}, 1
		}, "witnessQuorum", policy.Narrows, policy.Widens},
		{"simulated", func(m *policy.Manifest) { m.Substrates[0].Simulated = false }, "substrates[sim-milan].simulated", policy.Narrows, policy.Widens},
		{"measurement", func(m *policy.Manifest) { m.Substrates[0].Measurements = append(m.Substrates[0].Measurements, h48) }, "substrates[sim-milan].measurements[" + h48 + "]", policy.Widens, policy.Narrows},
		{"machines", func(m *policy.Manifest) { m.Substrates[0].Machines = []string{machine} }, "substrates[sim-milan].machines", policy.Narrows, policy.Widens},
		{"TCB", func(m *policy.Manifest) { m.Substrates[0].SNP.MinTCB.SNP++ }, "substrates[sim-milan].snp.minTCB.snp", policy.Narrows, policy.Widens},
		{"debug", func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.AllowDebug = true }, "substrates[sim-milan].snp.guest.allowDebug", policy.Widens, policy.Narrows},
		{"VMPL", func(m *policy.Manifest) { m.Substrates[0].SNP.Guest.VMPL = 1 }, "substrates[sim-milan].snp.guest.vmpl", policy.Changes, policy.Changes},
		{"role", func(m *policy.Manifest) { m.Substrates[0].Roles = append(m.Substrates[0].Roles, policy.RoleIngress) }, "substrates[sim-milan].roles[ingress]", policy.Widens, policy.Narrows},
		{"image", func(m *policy.Manifest) {
			m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "n", Digest: policytest.Digest("n")})
		}, "workloads[web].images[" + string(policytest.Digest("n")) + "]", policy.Widens, policy.Narrows},
		{"namespaces", func(m *policy.Manifest) { m.Workloads[0].Namespaces = []string{"prod"} }, "workloads[web].namespaces", policy.Narrows, policy.Widens},
		{"port", func(m *policy.Manifest) {
			m.Workloads[0].Peers.To[0].Ports = append(m.Workloads[0].Peers.To[0].Ports, 1)
		}, "workloads[web].peers.to[db].ports[1]", policy.Widens, policy.Narrows},
		{"peer", func(m *policy.Manifest) { m.Workloads[1].Peers.From = nil }, "workloads[db].peers.from[web]", policy.Narrows, policy.Widens},
		{"host access", func(m *policy.Manifest) { m.Workloads[0].HostAccess = false }, "workloads[web].hostAccess", policy.Narrows, policy.Widens},
		{"workload", func(m *policy.Manifest) {
			m.Workloads = append(m.Workloads, policy.Workload{Name: "new", Images: m.Workloads[0].Images})
		}, "workloads[new]", policy.Widens, policy.Narrows},
		{"threshold", func(m *policy.Manifest) { m.Operators.Threshold = 2 }, "operators.threshold", policy.Narrows, policy.Widens},
		{"operator's name", func(m *policy.Manifest) { m.Operators.Keys[0].Name = "alice" }, "operators.keys[*].name", policy.Changes, policy.Changes},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := policytest.New(t, policytest.WithOperators(2, 1))
			next := f.Next(t, tt.edit)
			path := tt.path
			if path == "operators.keys[*].name" {
				id, err := f.Operators.Keys[0].ID()
				if err != nil {
					t.Fatal(err)
				}
				path = "operators.keys[" + string(id) + "].name"
			}
			check := func(a, b *policy.Manifest, effect policy.Effect) {
				i := slices.IndexFunc(policy.Diff(a, b), func(c policy.Change) bool { return c.Path == path })
				if i < 0 {
					t.Fatalf("no change at %s in %+v", path, policy.Diff(a, b))
				}
				if c := policy.Diff(a, b)[i]; c.Effect != effect || c.Before == c.After {
					t.Errorf("change = %+v, want it to say %q", c, effect)
				}
			}
			check(f.Manifest, next.Manifest, tt.effect)
			check(next.Manifest, f.Manifest, tt.back)
		})
	}
}

// What may run is part of the diff, field by field, both ways.
func TestDiffOfRuns(t *testing.T) {
	one, two := "1", "2"
	const image = "workloads[web].images[*].run"
	with := func(run policy.Run) func(m *policy.Manifest) {
		return func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &run }
	}
	env := func(e policy.EnvRule) func(m *policy.Manifest) { return with(policy.Run{Env: []policy.EnvRule{e}}) }
	mount := func(source string, readOnly bool) func(m *policy.Manifest) {
		return with(policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: source, ReadOnly: readOnly}}})
	}
	alice := signerOf(t, "alice")
	id, err := alice.ID()
	if err != nil {
		t.Fatal(err)
	}
	pause := policy.Image{Name: "pause", Digest: policytest.Digest("pause")}
	for _, c := range []struct {
		name         string
		before, edit func(m *policy.Manifest)
		path         string
		effect, back policy.Effect
	}{
		{"args", nil, with(policy.Run{Args: []string{"/x"}}), image + ".args", policy.Changes, policy.Changes},
		{"any args", nil, with(policy.Run{Args: []string{"any"}}), image + ".args", policy.Widens, policy.Narrows},
		{"other args", with(policy.Run{Args: []string{"/x"}}), with(policy.Run{Args: []string{"/y"}}), image + ".args", policy.Changes, policy.Changes},
		{"any variable", nil, env(policy.EnvRule{Name: "A", Any: true}), image + ".env[A]", policy.Widens, policy.Narrows},
		{"variable", nil, env(policy.EnvRule{Name: "A", Value: &one}), image + ".env[A]", policy.Changes, policy.Changes},
		{"another value", env(policy.EnvRule{Name: "A", Value: &one}), env(policy.EnvRule{Name: "A", Value: &two}), image + ".env[A]", policy.Changes, policy.Changes},
		{"any value", env(policy.EnvRule{Name: "A", Value: &one}), env(policy.EnvRule{Name: "A", Any: true}), image + ".env[A]", policy.Widens, policy.Narrows},
		{"service variables", nil, with(policy.Run{ServiceEnv: true}), image + ".serviceEnv", policy.Widens, policy.Narrows},
		{"directory", nil, with(policy.Run{Cwd: "/x"}), image + ".cwd", policy.Changes, policy.Changes},
		{"user", nil, with(policy.Run{User: "1"}), image + ".user", policy.Changes, policy.Changes},
		{"group", nil, with(policy.Run{Groups: []uint32{5}}), image + ".groups[5]", policy.Widens, policy.Narrows},
		{"mount", nil, mount("csi", false), image + ".mounts[/d]", policy.Widens, policy.Narrows},
		{"mount's source", mount("csi", false), mount("/etc", false), image + ".mounts[/d].source", policy.Changes, policy.Changes},
		{"writable mount", mount("csi", true), mount("csi", false), image + ".mounts[/d].readOnly", policy.Widens, policy.Narrows},
		{"mount that is required", mount("csi", false), with(policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: "csi", Required: true}}}), image + ".mounts[/d].required", policy.Narrows, policy.Widens},
		{"required mount", nil, with(policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: "csi", Required: true}}}), image + ".mounts[/d]", policy.Changes, policy.Changes},
		{"device", nil, with(policy.Run{Devices: []string{"/dev/x"}}), image + ".devices[/dev/x]", policy.Widens, policy.Narrows},
		{"capability", nil, with(policy.Run{Capabilities: []string{"BPF"}}), image + ".capabilities[BPF]", policy.Widens, policy.Narrows},
		{"privileged", nil, with(policy.Run{Privileged: true}), image + ".privileged", policy.Widens, policy.Narrows},
		{"namespace", nil, with(policy.Run{HostNamespaces: []string{"pid"}}), image + ".hostNamespaces[pid]", policy.Widens, policy.Narrows},
		{"socket", nil, with(policy.Run{Sockets: []string{"raw"}}), image + ".sockets[raw]", policy.Widens, policy.Narrows},
		{"rlimit", nil, with(policy.Run{Rlimits: []string{"RLIMIT_AS"}}), image + ".rlimits[RLIMIT_AS]", policy.Widens, policy.Narrows},
		{"sysctl", nil, with(policy.Run{Sysctls: []string{"a.b"}}), image + ".sysctls[a.b]", policy.Widens, policy.Narrows},
		{"stdin", nil, with(policy.Run{Stdin: true}), image + ".stdin", policy.Widens, policy.Narrows},
		{"probe", nil, func(m *policy.Manifest) { m.Workloads[0].Probes = []uint16{80} }, "workloads[web].probes[80]", policy.Widens, policy.Narrows},
		{"network", nil, func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, "workloads[web].hostNetwork", policy.Changes, policy.Changes},
		{"bootstrap", func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }, func(m *policy.Manifest) { m.Workloads[0].Bootstrap = true }, "workloads[web].bootstrap", policy.Widens, policy.Narrows},
		{"exec", nil, func(m *policy.Manifest) { m.Workloads[0].Exec = []policy.Exec{{Args: []string{"/x"}}} }, `workloads[web].exec[["/x"]]`, policy.Widens, policy.Narrows},
		{"signer", nil, func(m *policy.Manifest) { m.Signers = []policy.Signer{alice} }, "signers[" + string(id) + "]", policy.Widens, policy.Narrows},
		{"sandbox", nil, func(m *policy.Manifest) { m.Sandboxes = []policy.Image{pause} }, "sandboxes[" + string(pause.Digest) + "]", policy.Widens, policy.Narrows},
		{"unlisted", nil, func(m *policy.Manifest) { m.Unlisted = policy.UnlistedCut }, "unlisted", policy.Changes, policy.Changes},
		{"second rule", nil, func(m *policy.Manifest) {
			m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "w", Digest: m.Workloads[0].Images[0].Digest, Run: &policy.Run{Stdin: true}})
		}, "workloads[web].images[*, 2]", policy.Widens, policy.Narrows},
	} {
		t.Run(c.name, func(t *testing.T) {
			var opts []policytest.Option
			if c.before != nil {
				opts = append(opts, policytest.With(c.before))
			}
			f := policytest.New(t, opts...)
			next := f.Next(t, c.edit)
			path := strings.Replace(c.path, "*", string(policytest.Digest(policytest.Web)), 1)
			for effect, changes := range map[policy.Effect][]policy.Change{c.effect: policy.Diff(f.Manifest, next.Manifest), c.back: policy.Diff(next.Manifest, f.Manifest)} {
				i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == path })
				if i < 0 || changes[i].Effect != effect || changes[i].Before == changes[i].After {
					t.Errorf("want %q at %s among %+v", effect, path, changes)
				}
			}
			if len(policy.Diff(f.Manifest, next.Manifest)) != 3 { // version and previous change as well
				t.Errorf("more changes than one: %+v", policy.Diff(f.Manifest, next.Manifest))
			}
		})
	}
}

func TestDiffIgnoresOrder(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(3, 2))
	m, err := policy.Parse(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(m.Workloads)
	slices.Reverse(m.Operators.Keys)
	slices.Reverse(m.Substrates[0].Roles)
	if changes := policy.Diff(f.Manifest, m); len(changes) != 0 {
		t.Errorf("changes = %+v", changes)
	}
}

func required() policy.CollateralRules {
	return policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: 30}
}

func TestDiffOfTrustDomains(t *testing.T) {
	with := func(edit func(*policy.Substrate)) *policy.Manifest {
		s := policytest.TDXSubstrate()
		edit(&s)
		return policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = append(m.Substrates, s) })).Manifest
	}
	value := policytest.Hex(7, 48)
	for path, c := range map[string]struct {
		edit         func(*policy.Substrate)
		effect, back policy.Effect
	}{
		"registers.rtmr1":                {func(s *policy.Substrate) { s.Registers["rtmr1"] = []string{policy.Any} }, policy.Widens, policy.Narrows},
		"tdx.statuses[OutOfDate]":        {func(s *policy.Substrate) { s.TDX.Statuses = append(s.TDX.Statuses, "OutOfDate") }, policy.Widens, policy.Narrows},
		"tdx.advisories":                 {func(s *policy.Substrate) { s.TDX.Advisories = []string{policy.Any} }, policy.Widens, policy.Narrows},
		"tdx.minEvaluationNumber":        {func(s *policy.Substrate) { s.TDX.MinEvaluationNumber = 20 }, policy.Narrows, policy.Widens},
		"tdx.owners[" + value + "]":      {func(s *policy.Substrate) { s.TDX.Owners = append(s.TDX.Owners, value) }, policy.Widens, policy.Narrows},
		"tdx.ownerConfigs":               {func(s *policy.Substrate) { s.TDX.OwnerConfigs = []string{policy.Any} }, policy.Widens, policy.Narrows},
		"tdx.serviceTDs[" + value + "]":  {func(s *policy.Substrate) { s.TDX.ServiceTDs = append(s.TDX.ServiceTDs, value) }, policy.Widens, policy.Narrows},
		"tdx.xfams":                      {func(s *policy.Substrate) { s.TDX.XFAMs = []string{policytest.Hex(1, 8)} }, policy.Narrows, policy.Widens},
		"tdx.events[" + value + "]":      {func(s *policy.Substrate) { s.TDX.Events = []string{value} }, policy.Widens, policy.Narrows},
		"tdx.guest.allowDebug":           {func(s *policy.Substrate) { s.TDX.Guest.AllowDebug = true }, policy.Widens, policy.Narrows},
		"tdx.guest.allowMigration":       {func(s *policy.Substrate) { s.TDX.Guest.AllowMigration = true }, policy.Widens, policy.Narrows},
		"tdx.guest.allowPerfmon":         {func(s *policy.Substrate) { s.TDX.Guest.AllowPerfmon = true }, policy.Widens, policy.Narrows},
		"tdx.guest.requireSeptVEDisable": {func(s *policy.Substrate) { s.TDX.Guest.RequireSeptVEDisable = false }, policy.Widens, policy.Narrows},
	} {
		before, after := with(func(*policy.Substrate) {}), with(c.edit)
		for effect, changes := range map[policy.Effect][]policy.Change{c.effect: policy.Diff(before, after), c.back: policy.Diff(after, before)} {
			i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == "substrates[tdx]."+path })
			if i < 0 || changes[i].Effect != effect {
				t.Errorf("%s: want %q among %+v", path, effect, changes)
			}
		}
	}
}

func TestLaterExpiriesWiden(t *testing.T) {
	with := func(until string) *policy.Manifest {
		return policytest.New(t, policytest.With(func(m *policy.Manifest) {
			m.Substrates[0].Expires = map[string]string{policytest.Hex(0xaa, 48): until}
		})).Manifest
	}
	sooner, later := with("2026-12-01T00:00:00Z"), with(nextYear)
	for _, c := range []struct {
		a, b   *policy.Manifest
		effect policy.Effect
	}{{sooner, later, policy.Widens}, {later, sooner, policy.Narrows}} {
		changes := policy.Diff(c.a, c.b)
		i := slices.IndexFunc(changes, func(c policy.Change) bool {
			return c.Path == "substrates[sim-milan].expires["+policytest.Hex(0xaa, 48)+"]"
		})
		if i < 0 || changes[i].Effect != c.effect {
			t.Errorf("want %q among %+v", c.effect, changes)
		}
	}
}

func TestDiffOfRecoveries(t *testing.T) {
	three := recoveryOf(t, 2, 3)
	with := func(threshold int, keys ...policy.RecoveryKey) *policy.Manifest {
		return policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Recovery = &policy.Recovery{Threshold: threshold, Keys: keys} })).Manifest
	}
	renamed := three.Keys[0]
	renamed.Name = "anna"
	before := with(2, three.Keys[:2]...)
	for path, c := range map[string]struct {
		after  *policy.Manifest
		effect policy.Effect
	}{
		"recovery.threshold":                                  {with(1, three.Keys[:2]...), policy.Widens},
		"recovery.keys[" + three.Keys[2].PublicKey + "]":      {with(2, three.Keys...), policy.Widens},
		"recovery.keys[" + three.Keys[1].PublicKey + "]":      {with(1, three.Keys[0]), policy.Narrows},
		"recovery.keys[" + three.Keys[0].PublicKey + "].name": {with(2, renamed, three.Keys[1]), policy.Changes},
	} {
		changes := policy.Diff(before, c.after)
		i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == path })
		if i < 0 || changes[i].Effect != c.effect {
			t.Errorf("%s: want %q among %+v", path, c.effect, changes)
		}
	}
}
