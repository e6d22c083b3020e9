// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// many denies n holders, in turn by each kind.
func many(n int) *policy.DenyList {
	l := &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: policytest.TrustDomain, Version: 1}
	kinds := policy.DenyKinds()
	for i := range n {
		value := fmt.Sprintf("w%d", i)
		switch kinds[i%len(kinds)] {
		case policy.DenySerial:
			value = fmt.Sprintf("f%x", i)
		case policy.DenyKey:
			value = string(policytest.Digest(value))
		case policy.DenyMachine:
			value = fmt.Sprintf("%0128x", i)
		case policy.DenyMeasurement:
			value = fmt.Sprintf("%096x", i)
		}
		l.Entries = append(l.Entries, policytest.Deny(kinds[i%len(kinds)], value))
	}
	return l
}

func parsedDenyList(t testing.TB, n int) *policy.DenyList {
	t.Helper()
	payload, err := policy.EncodeDenyList(many(n))
	if err != nil {
		t.Fatal(err)
	}
	l, err := policy.ParseDenyList(payload)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDeniesAllocatesNothing(t *testing.T) {
	h := holder()
	for name, l := range map[string]*policy.DenyList{"none": nil, "empty": parsedDenyList(t, 0), "large": parsedDenyList(t, 1000)} {
		if n := testing.AllocsPerRun(100, func() {
			if !l.Denies(h).Allowed {
				t.Fatal("denied")
			}
		}); n != 0 {
			t.Errorf("%s: Denies allocates %v times", name, n)
		}
	}
}

func BenchmarkDenies(b *testing.B) {
	h := holder()
	for _, n := range []int{0, 100, 10_000} {
		l := parsedDenyList(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !l.Denies(h).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkParseDenyList(b *testing.B) {
	payload, err := policy.EncodeDenyList(many(10_000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := policy.ParseDenyList(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseDenyList(f *testing.F) {
	fixture := policytest.New(f)
	first := fixture.DenyList(f, nil, oneOfEach()...)
	f.Add(first.Payload)
	f.Add(fixture.DenyList(f, first).Payload)
	f.Add([]byte(`{"schema":"c8s.dev/denylist/v1","trustDomain":"a","version":1,"previous":"","entries":[{"kind":"serial","value":"1","reason":"r"}]}`))
	f.Add([]byte(`{"entries":[{"kind":"x","kind":"y"}],"entries":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := policy.ParseDenyList(text)
		if err != nil {
			if l != nil || policy.CodeOf(err) == "" {
				t.Fatalf("refusal without a code, or with a list: %v", err)
			}
			return
		}
		again, err := policy.EncodeDenyList(l)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if l2, err := policy.ParseDenyList(again); err != nil || !slices.Equal(l.Entries, l2.Entries) {
			t.Fatalf("what was written reads otherwise: %v", err)
		}
		for _, e := range l.Entries {
			h := policy.Holder{}
			switch e.Kind {
			case policy.DenySerial:
				h.Serial = e.Value
			case policy.DenyKey:
				h.Key = policy.Digest(e.Value)
			case policy.DenyMachine:
				h.Machine = e.Value
			case policy.DenyMeasurement:
				h.Measurement = e.Value
			case policy.DenyWorkload:
				h.Workload = e.Value
			}
			if l.Denies(h).Allowed {
				t.Fatalf("%+v denies nothing", e)
			}
		}
		if d := l.Denies(policy.Holder{}); !d.Allowed {
			t.Fatalf("an empty holder is denied: %v", d)
		}
	})
}
