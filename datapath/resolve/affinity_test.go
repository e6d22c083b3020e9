// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"testing"
	"time"
)

// local has the node's own pods be those of 10.81.0.0/16.
func (s *sited) local() *sited {
	s.cfg.Local = func(a netip.Addr) bool { return netip.MustParsePrefix("10.81.0.0/23").Contains(a) }
	return s
}

// As one daemon after the other on a node: the successor knows the same pods
// and Services, and nothing of before.
func TestClientsKeepTheirEndpointInAHandover(t *testing.T) {
	before, after := newSited(t), newSited(t).local()
	before.endpoints(time.Minute, many(2)...)
	var had [200]netip.AddrPort
	for i := range had {
		had[i] = before.ask(client(i))
	}
	before.now = before.now.Add(20 * time.Second)
	after.now = before.now
	for _, s := range []*sited{before, after} {
		s.endpoints(time.Minute, many(20)...)
	}
	for _, a := range before.Affinities() {
		if a.Left != 40*time.Second || !after.AdoptAffinity(a, after.now) {
			t.Fatalf("%+v is not taken over", a)
		}
	}
	after.now = after.now.Add(40*time.Second - time.Nanosecond)
	for i := range had {
		if got := after.ask(client(i)); got != had[i] {
			t.Fatalf("client %d moved from %s to %s", i, had[i], got)
		}
	}
}

func TestOnlyWhatCountsHereIsAdopted(t *testing.T) {
	good := func(a *Affinity) {}
	for name, tt := range map[string]struct {
		change func(*Affinity)
		age    time.Duration
		none   bool // the Service has no affinity any more
		want   bool
	}{
		"as it was":             {change: good, want: true},
		"another node's pod":    {change: func(a *Affinity) { a.Client = addr("10.82.0.1") }},
		"another Service":       {change: func(a *Affinity) { a.Service = ap("10.96.0.99:80") }},
		"another port":          {change: func(a *Affinity) { a.Service = ap(vip4 + ":81") }},
		"another protocol":      {change: func(a *Affinity) { a.Protocol = UDP }},
		"no protocol":           {change: func(a *Affinity) { a.Protocol = 1 }},
		"no endpoint of it":     {change: func(a *Affinity) { a.Endpoint = ap("10.81.2.99:80") }},
		"an endpoint's address": {change: func(a *Affinity) { a.Endpoint = netip.AddrPortFrom(a.Endpoint.Addr(), 1) }},
		"no affinity":           {change: good, none: true},
		"almost over":           {change: good, age: time.Minute - time.Nanosecond, want: true},
		"over on the way":       {change: good, age: time.Minute},
		"for ever":              {change: func(a *Affinity) { a.Left = 1000 * time.Hour }, age: time.Minute}, // the time-out counts
		"over before":           {change: func(a *Affinity) { a.Left = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSited(t).local()
			timeout := time.Minute
			if tt.none {
				timeout = 0
			}
			s.endpoints(timeout, many(3)...)
			a := Affinity{Client: client(1), Service: ap(vip4 + ":80"), Protocol: TCP, Endpoint: many(3)[0].Addr, Left: time.Minute}
			tt.change(&a)
			if got := s.AdoptAffinity(a, s.now.Add(-tt.age)); got != tt.want {
				t.Errorf("%+v is adopted: %t", a, got)
			}
			if held := len(s.Affinities()); held > 1 || (held == 1) != tt.want {
				t.Errorf("%d are held", held)
			}
		})
	}
}

func TestAdoptedAffinitiesAreBounded(t *testing.T) {
	s := newSited(t)
	for i := range 2 * stickyPerShard {
		key := stickyKey{client(1), netip.AddrPortFrom(addr(vip4), uint16(i+1)), TCP}
		if got := s.sticky.adopt(key, stickyPod{ap("10.81.2.1:80"), s.now.Add(time.Hour).UnixNano()}); got != (i < stickyPerShard) {
			t.Fatalf("number %d of one client is adopted: %t", i, got)
		}
	}
	// What the client did since counts more.
	if s.sticky.adopt(stickyKey{client(1), netip.AddrPortFrom(addr(vip4), 1), TCP}, stickyPod{}) {
		t.Error("what is known was replaced")
	}
}
