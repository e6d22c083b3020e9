// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// give is what the next installation is given.
func (d *table) give(t *testing.T, operators policy.Operators, envelope []byte) {
	t.Helper()
	text, err := json.Marshal(operators)
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "operators.json", string(text))
	d.write(t, "manifest.json", string(envelope))
}

func (d *table) has(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What is given to an installation on Kubernetes is the control plane's choice.
func TestInstallKeepsTheNodesTrust(t *testing.T) {
	first := policytest.New(t)
	second := first.Next(t, nil)
	others := policytest.New(t)
	newer := others.Next(t, nil).Next(t, nil)
	forked := first.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = !m.Workloads[0].HostAccess })
	renamed := policy.Operators{Threshold: 1, Keys: slices.Clone(first.Operators.Keys)}
	renamed.Keys[0].Name = "renamed"
	for name, c := range map[string]struct {
		operators policy.Operators
		envelope  []byte
		taken     bool // the manifest
		say       string
	}{
		"the same":                        {first.Operators, second.Envelope, true, ""},
		"a newer manifest":                {first.Operators, second.Next(t, nil).Envelope, true, ""},
		"an older manifest":               {first.Operators, first.Envelope, false, "version 2, stays"},
		"another of the same version":     {first.Operators, forked.Envelope, false, "version 2, stays"},
		"the operators, named otherwise":  {renamed, second.Envelope, true, ""},
		"other operators":                 {others.Operators, others.Envelope, false, "operators are others"},
		"a newer manifest of others":      {others.Operators, newer.Envelope, false, "version 2, stays"},
		"others, and the node's manifest": {others.Operators, both(t, second, others), true, "operators are others"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTable(t)
			d.give(t, first.Operators, second.Envelope)
			if out, err := d.install(t); err != nil {
				t.Fatal(err, out)
			}
			operators := d.has(t, host.Operators)
			d.give(t, c.operators, c.envelope)
			out, err := d.install(t)
			if err != nil || !strings.Contains(out, c.say) {
				t.Errorf("install: %v\n%s", err, out)
			}
			if trusted, err := policy.ParseOperators([]byte(d.has(t, host.Operators))); err != nil || trusted.Digest() != first.Operators.Digest() {
				t.Errorf("the node trusts others: %v; it had %s", err, operators)
			}
			want := string(second.Envelope)
			if c.taken {
				want = string(c.envelope)
			}
			if d.has(t, host.Manifest) != want {
				t.Error("another manifest is installed")
			}
		})
	}
}

// both has the manifest signed by another's operators too.
func both(t *testing.T, of, by *policytest.Fixture) []byte {
	t.Helper()
	envelope, err := policy.Sign(of.Payload, of.Keys[0], by.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestInstallRefusesWhereTheNodesTrustCannotBeRead(t *testing.T) {
	d := newTable(t)
	if out, err := d.install(t); err != nil {
		t.Fatal(err, out)
	}
	others := policytest.New(t)
	for name, damaged := range map[string]string{"operators": host.Operators, "manifest": host.Manifest} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("root", damaged)
			before := d.has(t, damaged)
			d.write(t, file, "{}")
			t.Cleanup(func() { d.write(t, file, before) })
			d.give(t, others.Operators, others.Envelope)
			if out, err := d.install(t); err == nil {
				t.Errorf("installed: %s", out)
			}
		})
	}
}
