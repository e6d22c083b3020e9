// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"testing"
)

func TestRoutesChooseTheLongestPrefix(t *testing.T) {
	r, err := ParseRoutes([]byte(`{"10.81.0.0/16":"10.80.0.9","10.81.1.0/24":"10.80.0.1","fd81:1::/64":"fd80::1"}`))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"10.81.1.7": "10.80.0.1", "10.81.2.7": "10.80.0.9", "fd81:1::5": "fd80::1"} {
		if got, ok := r.Lookup(netip.MustParseAddr(addr)); !ok || got.String() != want {
			t.Errorf("Lookup(%s) = %v, %v, want %s", addr, got, ok, want)
		}
	}
	for _, addr := range []string{"10.82.0.1", "fd82::1"} {
		if got, ok := r.Lookup(netip.MustParseAddr(addr)); ok {
			t.Errorf("Lookup(%s) = %s, want no route", addr, got)
		}
	}
}

func TestRoutesRefuseWhatTheyCannotMean(t *testing.T) {
	for _, raw := range []string{``, `[]`, `{"10.81.1.1/24":"10.80.0.1"}`, `{"10.81.1.0/24":""}`, `{"10.81.1.0/24":"0.0.0.0"}`, `{"x":"10.80.0.1"}`} {
		if _, err := ParseRoutes([]byte(raw)); err == nil {
			t.Errorf("%q was accepted", raw)
		}
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add([]byte(`{"10.81.1.0/24":"10.80.0.1"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRoutes(raw)
		if err != nil {
			return
		}
		for _, e := range r.prefixes {
			if !e.node.IsValid() || e.prefix != e.prefix.Masked() {
				t.Fatalf("accepted a useless route %+v", e)
			}
		}
	})
}
