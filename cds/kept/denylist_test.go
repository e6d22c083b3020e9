// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func mustOpenDenyList(t *testing.T, path string, operators ...policy.Operators) *DenyList {
	t.Helper()
	d, err := OpenDenyList(path, policytest.TrustDomain, operators...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOlderDenyListIsRefusedAfterARestartToo(t *testing.T) {
	f := policytest.New(t)
	first := f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "web"))
	second := f.DenyList(t, first)
	third := f.DenyList(t, second, policytest.Deny(policy.DenyWorkload, "db"))
	fork := f.DenyList(t, first, policytest.Deny(policy.DenyWorkload, "other"))
	path := filepath.Join(t.TempDir(), "state", "denylist")
	for _, tt := range []struct {
		name    string
		next    *policy.SignedDenyList
		changed bool
		code    policy.Code
		want    *policy.SignedDenyList // in force afterwards
	}{
		{"the first", first, true, "", first},
		{"the same", first, false, "", first},
		{"its successor", second, true, "", second},
		{"an older one", first, false, policy.CodeDenyListRolledBack, second},
		{"another of the same version", fork, false, policy.CodeDenyListForked, second},
		{"a later one", third, true, "", third},
		{"an older one", second, false, policy.CodeDenyListRolledBack, third},
		{"none", nil, false, policy.CodeUndecided, third},
	} {
		d := mustOpenDenyList(t, path, f.Operators) // as after a restart
		changed, err := d.Adopt(tt.next)
		if changed != tt.changed || policy.CodeOf(err) != tt.code {
			t.Errorf("%s: changed %t, %v; want %t, %s", tt.name, changed, err, tt.changed, tt.code)
		}
		for _, d := range []*DenyList{d, mustOpenDenyList(t, path, f.Operators)} {
			if got := d.InForce(); got == nil || got.Digest != tt.want.Digest {
				t.Errorf("%s: in force is %v, want version %d", tt.name, got, tt.want.List.Version)
			}
		}
	}
}

func TestMissedDenyListsAreNoReasonToRefuseALaterOne(t *testing.T) {
	f := policytest.New(t)
	first := f.DenyList(t, nil)
	third := f.DenyList(t, f.DenyList(t, first))
	for name, prev := range map[string]*policy.SignedDenyList{"none": nil, "the first": first} {
		d := mustOpenDenyList(t, "")
		if prev != nil {
			if _, err := d.Adopt(prev); err != nil {
				t.Fatal(err)
			}
		}
		if changed, err := d.Adopt(third); !changed || err != nil {
			t.Errorf("after %s: %t, %v", name, changed, err)
		}
	}
}

func TestDenyListOfAnotherMeshIsRefused(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.TrustDomain = "elsewhere.test" }))
	path := filepath.Join(t.TempDir(), "denylist")
	foreign := f.DenyList(t, nil)
	if _, err := mustOpenDenyList(t, path, f.Operators).Adopt(foreign); policy.CodeOf(err) != policy.CodeTrustDomain {
		t.Errorf("adopting: %v", err)
	}
	if err := os.WriteFile(path, foreign.Envelope, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDenyList(path, policytest.TrustDomain, f.Operators); policy.CodeOf(err) != policy.CodeTrustDomain {
		t.Errorf("opening: %v", err)
	}
}

func TestDamagedKeptDenyListStopsTheStart(t *testing.T) {
	f, stranger := policytest.New(t), policytest.New(t)
	list := f.DenyList(t, nil)
	for name, content := range map[string][]byte{
		"empty":                     {},
		"half":                      list.Envelope[:len(list.Envelope)/2],
		"oversize":                  make([]byte, policy.MaxDenyListEnvelope+1),
		"a manifest":                f.Envelope,
		"signed by other operators": stranger.DenyList(t, nil).Envelope,
	} {
		path := filepath.Join(t.TempDir(), "denylist")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := OpenDenyList(path, policytest.TrustDomain, f.Operators); err == nil {
			t.Errorf("%s: %v is in force", name, d.InForce())
		}
	}
}

// Operators may change by a manifest: a list that the former ones signed stays
// in force until the new ones sign another.
func TestKeptDenyListMayBeOfEitherSetOfOperators(t *testing.T) {
	f, stranger := policytest.New(t), policytest.New(t)
	path := filepath.Join(t.TempDir(), "denylist")
	list := f.DenyList(t, nil)
	if _, err := mustOpenDenyList(t, path, f.Operators).Adopt(list); err != nil {
		t.Fatal(err)
	}
	if got := mustOpenDenyList(t, path, stranger.Operators, f.Operators).InForce(); got == nil || got.Digest != list.Digest {
		t.Errorf("%v is in force", got)
	}
	if _, err := OpenDenyList(path, policytest.TrustDomain); err == nil {
		t.Error("a list is in force that no trusted operator signed")
	}
}
