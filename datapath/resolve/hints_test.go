// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// chosen asks often enough to see every endpoint that is used.
func chosen(tab *Table, avoid ...netip.Addr) string {
	seen := map[string]bool{}
	for range 200 {
		target, v := tab.Resolve(Query{Protocol: TCP, Src: addr(podA), Dst: ap(vip4 + ":80"), Avoid: avoid})
		if v != Found {
			return outcome(target, v)
		}
		seen[target.Pod.Addr().String()] = true
	}
	var all []string
	for a := range seen {
		all = append(all, a[strings.LastIndex(a, ".")+1:])
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// hinted is an endpoint with hints, spelt "1 zone=x,y node=a leaving".
func hinted(spec string) Endpoint {
	words := strings.Fields(spec)
	e := Endpoint{Addr: ap("10.81.2." + words[0] + ":80")}
	for _, w := range words[1:] {
		if e.Hints == nil && w != "leaving" {
			e.Hints = &Hints{}
		}
		switch key, value, _ := strings.Cut(w, "="); key {
		case "zone":
			e.Hints.Zones = strings.Split(value, ",")
		case "node":
			e.Hints.Nodes = strings.Split(value, ",")
		case "leaving":
			e.Terminating = true
		}
	}
	return e
}

func TestHintsCountWhenAllHaveThemAndOneIsForHere(t *testing.T) {
	for _, tt := range []struct{ name, zone, endpoints, avoid, want string }{
		{name: "no hints", zone: "x", endpoints: "1;2", want: "1 2"},
		{name: "for the zone", zone: "x", endpoints: "1 zone=x;2 zone=y;3 zone=y,x", want: "1 3"},
		{name: "one has none", zone: "x", endpoints: "1 zone=x;2", want: "1 2"},
		{name: "none for this zone", zone: "z", endpoints: "1 zone=x;2 zone=y", want: "1 2"},
		{name: "the zone of this node is unknown", endpoints: "1 zone=x;2 zone=y", want: "1 2"},
		{name: "an empty zone is no zone", endpoints: "1 zone=;2 zone=y", want: "1 2"},
		{name: "the node goes before the zone", zone: "x", endpoints: "1 zone=x node=a;2 zone=x node=b", want: "1"},
		{name: "none for this node: its zone", zone: "x", endpoints: "1 zone=x node=c;2 zone=y node=b", want: "1"},
		{name: "not all have the node's", zone: "x", endpoints: "1 zone=x node=a;2 zone=x;3 zone=y", want: "1 2"},
		{name: "those on their way out do not count", zone: "x", endpoints: "1 zone=x;2 zone=y;3 leaving", want: "1"},
		{name: "all are on their way out", zone: "x", endpoints: "1 zone=x leaving;2 zone=y leaving", want: "1 2"},
		{name: "the near ones failed", zone: "x", endpoints: "1 zone=x;2 zone=y;3 zone=y", avoid: "1", want: "2 3"},
		{name: "all failed", zone: "x", endpoints: "1 zone=x;2 zone=y", avoid: "1;2", want: "no endpoints"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, affinity := range []time.Duration{0, time.Hour} {
				c := nodes()
				c.Nodes[0].Zone, c.Nodes[1].Zone = tt.zone, "y"
				var all []Endpoint
				for spec := range strings.SplitSeq(tt.endpoints, ";") {
					all = append(all, hinted(spec))
				}
				s := service(all...)
				s.Affinity = affinity
				c.Services = []Service{s}
				tab := table(t)
				tab.SetCluster(c)
				var avoid []netip.Addr
				for a := range strings.SplitSeq(tt.avoid, ";") {
					if a != "" {
						avoid = append(avoid, addr("10.81.2."+a))
					}
				}
				got := chosen(tab, avoid...)
				if affinity > 0 && !slices.Contains(strings.Fields(tt.want), got) && got != tt.want || affinity == 0 && got != tt.want {
					t.Errorf("affinity %s: %s, want %s", affinity, got, tt.want)
				}
			}
		})
	}
}

// Local traffic is local whatever hints say.
func TestLocalPolicyIgnoresHints(t *testing.T) {
	c := nodes()
	c.Nodes[0].Zone = "x"
	c.Pods = append(c.Pods, Pod{Name: "d/c", Addrs: []netip.Addr{addr("10.81.1.3")}, Node: "a"})
	s := service(
		Endpoint{Addr: ap(podA + ":80"), Hints: &Hints{Zones: []string{"x"}}}, Endpoint{Addr: ap("10.81.1.3:80"), Hints: &Hints{Zones: []string{"y"}}},
		Endpoint{Addr: ap(podB + ":80"), Hints: &Hints{Zones: []string{"x"}}},
	)
	s.Local = true
	c.Services = []Service{s}
	tab := table(t)
	tab.SetCluster(c)
	if got := chosen(tab); got != "2 3" {
		t.Errorf("%s", got)
	}
	if target, v := tab.Resolve(Query{Protocol: TCP, Src: addr(podA), Dst: ap(vip4 + ":80"), Avoid: []netip.Addr{addr(nodeA)}}); v != NoEndpoints {
		t.Errorf("%+v", target)
	}
}
