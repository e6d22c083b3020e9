// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestDiffSaysWhatWidensAndNarrows(t *testing.T) {
	h48, machine := policytest.Hex(1, 48), policytest.Hex(2, 64)
	tests := []struct {
		name         string
		edit         func(m *policy.Manifest)
		path         string
		effect, back policy.Effect // and when undone
	}{
		{"production", func(m *policy.Manifest) { m.Production, m.Substrates[0].Simulated = true, false }, "production", policy.Narrows, policy.Widens},
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
