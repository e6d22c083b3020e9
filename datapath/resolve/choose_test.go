// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func many(n int) (all []Endpoint) {
	for i := range n {
		all = append(all, at(fmt.Sprintf("10.81.2.%d:80", i+1)))
	}
	return all
}

func TestConnectionsAreSpread(t *testing.T) {
	tab := table(t)
	c := nodes()
	with(service(many(10)...))(&c)
	tab.SetCluster(c)
	counts := map[netip.AddrPort]int{}
	for range 10_000 {
		target, _ := tab.Resolve(Query{Protocol: TCP, Src: addr(podA), Dst: ap(vip4 + ":80")})
		counts[target.Pod]++
	}
	for pod, n := range counts {
		if len(counts) != 10 || n < 800 || n > 1200 {
			t.Errorf("%s: %d of 10,000 over %d pods", pod, n, len(counts))
		}
	}
}

func TestAffinityHoldsAndMovesOnlyWhatItMust(t *testing.T) {
	tab := table(t)
	c := func(n int) Cluster {
		c := nodes()
		s := service(many(n)...)
		s.Affinity = time.Hour
		c.Services = []Service{s}
		return c
	}
	ask := func() (all []netip.AddrPort) {
		for i := range 200 {
			src := netip.AddrFrom4([4]byte{10, 81, 1, byte(i)})
			target, _ := tab.Resolve(Query{Protocol: TCP, Src: src, Dst: ap(vip4 + ":80")})
			all = append(all, target.Pod)
		}
		return all
	}
	tab.SetCluster(c(10))
	before := ask()
	if again := ask(); !slices.Equal(before, again) {
		t.Error("a source changed its endpoint without a reason")
	}
	pods := slices.Clone(before)
	slices.SortFunc(pods, netip.AddrPort.Compare)
	if n := len(slices.Compact(pods)); n < 8 {
		t.Errorf("200 sources share %d of 10 endpoints", n)
	}
	tab.SetCluster(c(9))
	for i, pod := range ask() {
		if pod != before[i] && before[i] != ap("10.81.2.10:80") {
			t.Errorf("source %d moved from %s, which is still there, to %s", i, before[i], pod)
		}
	}
}

func TestFailedPodsAndNodesAreAvoided(t *testing.T) {
	for _, affinity := range []time.Duration{0, time.Hour} {
		tab := table(t)
		c := nodes()
		s := service(at(podA+":80"), at(podB+":80"), at("10.81.2.3:80"))
		s.Affinity = affinity
		c.Services = []Service{s}
		tab.SetCluster(c)
		for range 50 {
			q := Query{Protocol: TCP, Src: addr(podA), Dst: ap(vip4 + ":80"), Avoid: []netip.Addr{addr(podB)}}
			if target, v := tab.Resolve(q); v != Found || target.Pod == ap(podB+":80") || !target.Others {
				t.Fatalf("%+v %v", target, v)
			}
			q.Avoid = []netip.Addr{addr(nodeB)}
			if target, v := tab.Resolve(q); v != Found || target.Pod != ap(podA+":80") {
				t.Fatalf("%+v %v", target, v)
			}
			q.Avoid = append(q.Avoid, addr(podA))
			if target, v := tab.Resolve(q); v != NoEndpoints {
				t.Fatalf("%+v %v", target, v)
			}
		}
	}
}
