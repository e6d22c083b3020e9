// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"testing"
	"time"
)

func TestServicesAreFoundByName(t *testing.T) {
	headless := func(all ...Endpoint) Service {
		return Service{Name: "d/web", Headless: true, Ports: []Port{{Name: "main", Protocol: TCP, Port: 80, Endpoints: all}}}
	}
	leaving := Endpoint{Addr: ap(podB + ":8080"), Terminating: true}
	for _, tt := range []struct {
		name   string
		change func(c *Cluster)
		static []Route
		local  []netip.Addr
		query  ServiceQuery
		want   string
	}{
		{name: "by number", change: with(service(at(podB + ":8080"))), query: ServiceQuery{Port: 80}, want: podB + ":8080 on " + nodeB + " for d/web"},
		{name: "by name", change: with(service(at(podB + ":8080"))), query: ServiceQuery{PortName: "main"}, want: podB + ":8080 on " + nodeB + " for d/web"},
		{name: "the number counts before the name", change: with(service(at(podB + ":8080"))), query: ServiceQuery{Port: 80, PortName: "x"}, want: podB + ":8080 on " + nodeB + " for d/web"},
		{name: "the pod's port is not the Service's", change: with(service(at(podB + ":8080"))), query: ServiceQuery{Port: 8080}, want: "no service port"},
		{name: "another name", change: with(service(at(podB + ":8080"))), query: ServiceQuery{PortName: "web"}, want: "no service port"},
		{name: "no port at all", change: with(service(at(podB + ":8080"))), want: "no service port"},
		{name: "a TCP port, not the UDP port of its number", change: with(both()), query: ServiceQuery{Port: 80}, want: podA + ":8080 on " + nodeA + " for d/web"},
		{name: "a UDP port by name", change: with(both()), query: ServiceQuery{PortName: "dns"}, want: "no service port"},
		{name: "nobody's", change: with(), query: ServiceQuery{Port: 80}, want: "no route"},
		{name: "another namespace's", change: with(service(at(podB + ":8080"))), query: ServiceQuery{Namespace: "e", Port: 80}, want: "no route"},
		{name: "IPv6 alone", change: with(service(at("[fd81:2::2]:8080"))), query: ServiceQuery{Port: 80}, want: "[fd81:2::2]:8080 on " + nodeB + " for d/web"},
		{
			name: "the other family when all of the first is to be avoided", change: with(service(at(podA+":8080"), at("[fd81:2::2]:8080"))),
			query: ServiceQuery{Port: 80, Avoid: []netip.Addr{addr(podA)}}, want: "[fd81:2::2]:8080 on " + nodeB + " for d/web",
		},
		{name: "without endpoints", change: with(service()), query: ServiceQuery{Port: 80}, want: "no endpoints"},
		{name: "nodes' programs", change: with(service(at(nodeB + ":6443"))), query: ServiceQuery{Port: 80}, want: "host service"},
		{name: "another name", change: with(Service{Name: "d/web", Alias: "api.example.com"}), query: ServiceQuery{Port: 80}, want: "host service"},
		{
			name: "a pod on its way out when no other is left", change: with(service(leaving)),
			query: ServiceQuery{Port: 80}, want: podB + ":8080 on " + nodeB + " for d/web",
		},
		{
			name: "an endpoint of this node", change: with(service(at(podB + ":8080"))), local: []netip.Addr{addr(podB)},
			query: ServiceQuery{Port: 80}, want: podB + ":8080 on " + nodeA + " for d/web",
		},
		{
			name: "behind a static route", change: with(headless(at(podB + ":8080"))), static: []Route{{prefix("10.81.2.0/24"), addr("10.80.0.9")}},
			query: ServiceQuery{Port: 80}, want: podB + ":8080 on 10.80.0.9 for d/web",
		},
		{name: "headless, by number", change: with(headless(at(podB + ":8080"))), query: ServiceQuery{Port: 80}, want: podB + ":8080 on " + nodeB + " for d/web"},
		{name: "headless, by name", change: with(headless(at(podB + ":8080"))), query: ServiceQuery{PortName: "main"}, want: podB + ":8080 on " + nodeB + " for d/web"},
		{
			name: "headless, one to be avoided", change: with(headless(at(podA+":8080"), at(podB+":8080"))),
			query: ServiceQuery{Port: 80, Avoid: []netip.Addr{addr(podA)}}, want: podB + ":8080 on " + nodeB + " for d/web",
		},
		{
			name: "headless, its node to be avoided", change: with(headless(at(podA+":8080"), at(podB+":8080"))),
			query: ServiceQuery{Port: 80, Avoid: []netip.Addr{addr(nodeB)}}, want: podA + ":8080 on " + nodeA + " for d/web",
		},
		{
			name: "headless, all to be avoided", change: with(headless(at(podA + ":8080"))),
			query: ServiceQuery{Port: 80, Avoid: []netip.Addr{addr(podA)}}, want: "no endpoints",
		},
		{name: "headless, on its way out", change: with(headless(leaving)), query: ServiceQuery{Port: 80}, want: "no endpoints"},
		{name: "headless, nodes' programs", change: with(headless(at(nodeB + ":6443"))), query: ServiceQuery{Port: 80}, want: "host service"},
		{name: "headless, without endpoints", change: with(headless()), query: ServiceQuery{Port: 80}, want: "no endpoints"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := table(t, tt.local...)
			tab.SetStatic(tt.static)
			c := nodes()
			tt.change(&c)
			tab.SetCluster(c)
			if tt.query.Namespace == "" {
				tt.query.Namespace = "d"
			}
			tt.query.Name = "web"
			if got := outcome(tab.Behind(tt.query)); got != tt.want {
				t.Errorf("%s, want %s (%+v)", got, tt.want, tab.Report())
			}
		})
	}
}

// One asker stands for all clients: affinity would send all of them to one pod.
func TestByNameEveryEndpointIsUsedAndOthersAreAnnounced(t *testing.T) {
	for _, kind := range []string{"usual", "sticky", "headless"} {
		s := service(at(podA+":8080"), at(podB+":8080"))
		switch kind {
		case "sticky":
			s.Affinity = time.Hour
		case "headless":
			s.Headless, s.VIPs = true, nil
		}
		c := nodes()
		with(s)(&c)
		tab := table(t)
		tab.SetCluster(c)
		seen := map[string]int{}
		for range 200 {
			target, v := tab.Behind(ServiceQuery{Namespace: "d", Name: "web", Port: 80})
			if v != Found || !target.Others {
				t.Fatalf("%s: %v %+v", kind, v, target)
			}
			seen[target.Pod.String()]++
		}
		if seen[podA+":8080"] < 50 || seen[podB+":8080"] < 50 {
			t.Errorf("%s: %v", kind, seen)
		}
		last, v := tab.Behind(ServiceQuery{Namespace: "d", Name: "web", Port: 80, Avoid: []netip.Addr{addr(podA)}})
		if v != Found || last.Others || last.Pod != ap(podB+":8080") {
			t.Errorf("%s: the last is %v %+v", kind, v, last)
		}
	}
}
