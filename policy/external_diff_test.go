// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestDiffAffectedAndLintKnowWhatIsOutside(t *testing.T) {
	f := policytest.New(t)
	with := f.Next(t, outside)
	const web = "workloads[web]"
	for path, edit := range map[string]func(m *policy.Manifest){
		"sameNode":                        func(m *policy.Manifest) { m.SameNode = "" },
		web + ".dns[only.example.net]":    func(m *policy.Manifest) { m.Workloads[0].DNS = m.Workloads[0].DNS[1:] },
		web + ".external[by-address]":     func(m *policy.Manifest) { m.Workloads[0].External = m.Workloads[0].External[1:] },
		web + ".external[by-address].tls": func(m *policy.Manifest) { m.Workloads[0].External[0].TLS = true },
		web + ".external[by-address].sni": func(m *policy.Manifest) { m.Workloads[0].External[0].SNI = []string{"a.example.com"} },
		web + ".external[by-name].names[api.example.com]": func(m *policy.Manifest) {
			m.Workloads[0].External[1].Names = m.Workloads[0].External[1].Names[1:]
		},
		web + ".external[by-address].cidrs[192.0.2.0/24]": func(m *policy.Manifest) {
			m.Workloads[0].External[0].CIDRs = m.Workloads[0].External[0].CIDRs[1:]
		},
		web + ".external[by-address].ports[80]": func(m *policy.Manifest) { m.Workloads[0].External[0].Ports = []uint16{443} },
		web + ".publish[30080]":                 func(m *policy.Manifest) { m.Workloads[0].Publish = m.Workloads[0].Publish[1:] },
		web + ".publish[30081].from":            func(m *policy.Manifest) { m.Workloads[0].Publish[1].From = []string{"192.0.2.0/24"} },
	} {
		next := with.Next(t, edit)
		for effect, changes := range map[policy.Effect][]policy.Change{policy.Narrows: policy.Diff(with.Manifest, next.Manifest), policy.Widens: policy.Diff(next.Manifest, with.Manifest)} {
			i := slices.IndexFunc(changes, func(c policy.Change) bool { return c.Path == path })
			if i < 0 || changes[i].Effect != effect || changes[i].Before == changes[i].After {
				t.Errorf("want %s at %s among %+v", effect, path, changes)
			}
		}
		stops := policy.Affected(with.Manifest, next.Manifest, policytest.Now())
		if i := slices.IndexFunc(stops, func(i policy.Impact) bool { return i.Path == path }); (i < 0) != (path == "sameNode") {
			t.Errorf("what stops at %s: %+v", path, stops)
		}
	}
	found := policy.Lint(with.Manifest, policytest.Now())
	for code, path := range map[policy.Code]string{
		policy.LintSameNode:    "sameNode",
		policy.LintWideCIDR:    web + ".external[everywhere].cidrs[::/0]",
		policy.LintNodeAddress: web + ".external[metadata].cidrs[169.254.169.254/32]",
		policy.LintPublished:   web + ".publish[30081].from",
	} {
		if !slices.ContainsFunc(found, func(f policy.Finding) bool { return f.Code == code && f.Path == path }) {
			t.Errorf("lint does not say %s at %s", code, path)
		}
	}
}

// outsideCases are what Lint says of rules for outside.
func outsideCases() []lintCase {
	external := func(e policy.External) func(m *policy.Manifest) {
		e.Name, e.Ports, e.Protocol = "e", []uint16{443}, policy.ProtocolTCP
		return func(m *policy.Manifest) { m.Workloads[0].External = []policy.External{e} }
	}
	cidr := func(text string) func(m *policy.Manifest) { return external(policy.External{CIDRs: []string{text}}) }
	publish := func(from string) func(m *policy.Manifest) {
		return func(m *policy.Manifest) {
			m.Workloads[0].Publish = []policy.Publish{{Port: 1, HostPort: 2, From: []string{from}}}
		}
	}
	const e = "workloads[web].external[e]"
	return []lintCase{
		{"good endpoint", cidr("192.0.2.0/24"), nil},
		{"good name", external(policy.External{Names: []string{"*.example.com"}}), nil},
		{"everywhere", cidr("0.0.0.0/0"), []string{"wide-cidr " + e + ".cidrs[0.0.0.0/0] warning"}},
		{"half of the world", cidr("8000::/1"), []string{"wide-cidr " + e + ".cidrs[8000::/1] warning"}},
		{"as wide as a network may be", cidr("10.0.0.0/8"), nil},
		{"metadata", cidr("169.254.169.254/32"), []string{"node-address " + e + ".cidrs[169.254.169.254/32] warning"}},
		{"a cloud's service elsewhere", cidr("168.63.129.16/32"), []string{"node-address " + e + ".cidrs[168.63.129.16/32] warning"}},
		{"beside a cloud's service", cidr("168.63.129.17/32"), nil},
		{"link-local", cidr("169.254.0.0/16"), []string{"node-address " + e + ".cidrs[169.254.0.0/16] warning"}},
		{"public suffix", external(policy.External{Names: []string{"*.com"}}), []string{"wide-name " + e + ".names[*.com] warning"}},
		{"public suffix of dns", func(m *policy.Manifest) { m.Workloads[0].DNS = []string{"*.com"} }, []string{"wide-name workloads[web].dns[*.com] warning"}},
		{"published", publish("192.0.2.0/24"), nil},
		{"published to any", publish(policy.Any), []string{"published-to-any workloads[web].publish[2].from info"}},
		{"same node", func(m *policy.Manifest) { m.SameNode = policy.SameNodeLocal }, []string{"same-node-local sameNode info"}},
		{"same node over the mesh", func(m *policy.Manifest) { m.SameNode = policy.SameNodeMesh }, nil},
	}
}
