// SPDX-License-Identifier: Apache-2.0

package external

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPausedBindingsLearnNothingAndForgetNothing(t *testing.T) {
	b, _ := newBindings(Config{})
	if !b.Learn("a", "x.example", addrs("192.0.2.1"), time.Hour) {
		t.Error("it does not learn")
	}
	b.Pause()
	if b.Learn("a", "x.example", addrs("192.0.2.2"), time.Hour) {
		t.Error("it learned what no successor will hear of")
	}
	wantNames(t, b, "a", "192.0.2.1", "x.example")
	wantNames(t, b, "a", "192.0.2.2")
	if told := b.Told(); len(told) != 1 {
		t.Errorf("%+v", told)
	}
	b.Resume()
	if !b.Learn("a", "x.example", addrs("192.0.2.2"), time.Hour) {
		t.Error("it does not learn again")
	}
	wantNames(t, b, "a", "192.0.2.2", "x.example")
}

func TestSuccessorKnowsWhatWasToldForAsLongAndNoLonger(t *testing.T) {
	b, c := newBindings(Config{})
	b.Learn("a", "short.example", addrs("192.0.2.1", "2001:db8::1"), 0) // the floor: a minute
	b.Learn("b", "long.example", addrs("192.0.2.1"), 10*time.Minute)
	b.Learn("b", "over.example", addrs("192.0.2.9"), 0)
	c.pass(59 * time.Second)
	b.Learn("a", "short.example", nil, time.Hour)
	told := b.Told()
	slices.SortFunc(told, func(x, y Told) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	want := []Told{
		{"a", "short.example", netip.MustParseAddr("192.0.2.1"), time.Second},
		{"a", "short.example", netip.MustParseAddr("2001:db8::1"), time.Second},
		{"b", "long.example", netip.MustParseAddr("192.0.2.1"), 541 * time.Second},
		{"b", "over.example", netip.MustParseAddr("192.0.2.9"), time.Second},
	}
	if !slices.Equal(told, want) {
		t.Fatalf("told %+v", told)
	}
	next := New(Config{Now: c.now})
	asked := c.now()
	c.pass(time.Second) // it took so long
	for _, one := range told {
		if got, want := next.Adopt(one, asked), one.UID == "b" && one.Name == "long.example"; got != want {
			t.Errorf("%+v is adopted: %t", one, got)
		}
	}
	wantNames(t, next, "b", "192.0.2.1", "long.example")
	wantNames(t, next, "a", "192.0.2.1")
	c.pass(540*time.Second - time.Nanosecond)
	wantNames(t, next, "b", "192.0.2.1", "long.example")
	c.pass(time.Nanosecond)
	wantNames(t, next, "b", "192.0.2.1")
	if told := next.Told(); len(told) != 0 {
		t.Errorf("what is over is told on: %+v", told)
	}
}

func TestAdoptedBindingsAreBounded(t *testing.T) {
	b, c := newBindings(Config{PerPod: 3, Total: 5})
	kept := 0
	for i := range 10 {
		for _, uid := range []string{"a", "b"} {
			if b.Adopt(Told{uid, "x.example", netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 100 * time.Hour}, c.now()) {
				kept++
			}
		}
	}
	if s := b.Stats(); kept != 5 || s.Held != 5 || s.Displaced != 0 {
		t.Errorf("%d kept, %+v", kept, s)
	}
	if b.Adopt(Told{"a", "x.example", netip.MustParseAddr("192.0.2.0"), time.Hour}, c.now()) || b.Adopt(Told{UID: "c", Name: "x.example", Left: time.Hour}, c.now()) {
		t.Error("one is kept twice, or has no address")
	}
	if len(b.pods) != 2 {
		t.Errorf("%d pods", len(b.pods))
	}
	c.pass(DefaultCeiling)
	if names := names(b, "a", "192.0.2.0"); len(names) != 0 {
		t.Error("it lasts beyond the ceiling")
	}
	b.Learn("c", "x.example", addrs("192.0.2.1"), 0)
	if s := b.Stats(); s.Held != 1 {
		t.Errorf("they are not swept: %+v", s)
	}
}
