// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var byValue = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func host(name, addr string) Endpoint { return Endpoint{Addr: ap(addr), Host: name, Node: "b"} }

func TestNamesLeadToServices(t *testing.T) {
	udp := Port{Name: "dns", Protocol: UDP, Port: 53, Endpoints: []Endpoint{host("db-0", podB+":5353")}}
	leaving := host("gone", "10.81.2.9:8080")
	leaving.Terminating = true
	c := nodes()
	c.Services = []Service{
		service(at(podB + ":8080")),
		{Name: "d/named", VIPs: []netip.Addr{addr("10.96.0.11")}, Ports: []Port{{Name: "main", Protocol: TCP, Port: 80, Endpoints: []Endpoint{host("n-0", podB+":1"), at(podA + ":1")}}}},
		{Name: "d/db", Headless: true, Ports: []Port{
			{Name: "main", Protocol: TCP, Port: 80, Endpoints: []Endpoint{host("db-0", podB+":8080"), host("db-0", "[fd81:2::2]:8080"), at("10.81.2.3:8080"), leaving}}, udp,
		}},
		{Name: "d/bare", Headless: true, Ports: []Port{{Endpoints: []Endpoint{{Addr: ap(podA + ":0")}}}}},
		{Name: "d/far", Alias: "api.example.com"},
	}
	tab := table(t)
	if r := tab.SetCluster(c); r.Ignored != 0 {
		t.Errorf("%+v", r)
	}
	main := []PortView{{Name: "main", Protocol: TCP, Port: 80}}
	for name, want := range map[string]ServiceView{
		"web":   {Addrs: []netip.Addr{addr(vip4), addr(vip6)}, Ports: main},
		"named": {Addrs: []netip.Addr{addr("10.96.0.11")}, Ports: main, Hosts: []HostView{{"n-0", []netip.Addr{addr(podB)}, []uint16{1}}}},
		"db": {
			Addrs: []netip.Addr{addr(podB), addr("10.81.2.3"), addr("fd81:2::2")}, Headless: true, Ports: []PortView{{Name: "main", Protocol: TCP, Port: 80}, {Name: "dns", Protocol: UDP, Port: 53}},
			Hosts: []HostView{
				{"10-81-2-3", []netip.Addr{addr("10.81.2.3")}, []uint16{8080, 0}},
				{"db-0", []netip.Addr{addr(podB), addr("fd81:2::2")}, []uint16{8080, 5353}},
			},
		},
		"bare": {Addrs: []netip.Addr{addr(podA)}, Headless: true, Hosts: []HostView{{"10-81-1-2", []netip.Addr{addr(podA)}, []uint16{}}}},
		"far":  {External: "api.example.com"},
	} {
		got, ok := tab.Service("d", name)
		if diff := cmp.Diff(want, got, byValue); !ok || diff != "" {
			t.Errorf("%s: %v %s", name, ok, diff)
		}
	}
	for _, name := range []string{"", "WEB", "nobody"} {
		if v, ok := tab.Service("d", name); ok {
			t.Errorf("%q is %+v", name, v)
		}
	}
	for a, want := range map[string]string{
		vip4: "web.d.svc", vip6: "web.d.svc", podB: "db-0.db.d.svc", "fd81:2::2": "db-0.db.d.svc", "10.81.2.3": "10-81-2-3.db.d.svc",
		podA: "10-81-1-2.bare.d.svc", "10.81.2.9": "", nodeB: "",
	} {
		if got, ok := tab.NameOf(addr(a)); got != want || ok != (want != "") {
			t.Errorf("%s is %q, want %q", a, got, want)
		}
	}
	for _, tt := range []struct {
		namespace, addr string
		want            bool
	}{{"d", podB, true}, {"d", "fd81:2::2", true}, {"e", podB, false}, {"", podB, false}, {"d", nodeB, false}, {"", nodeA, false}, {"d", "10.81.2.77", false}} {
		if got := tab.PodNamed(tt.namespace, addr(tt.addr)); got != tt.want {
			t.Errorf("pod %s in %q: %v", tt.addr, tt.namespace, got)
		}
	}
}

// A headless Service is reached by its pods' addresses alone, and one that is
// another name by no address.
func TestServicesWithoutAddressesClaimNone(t *testing.T) {
	for _, s := range []Service{
		{Name: "d/a", Headless: true, VIPs: []netip.Addr{addr(vip4)}, Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: many(1)}}},
		{Name: "d/a", Alias: "example.com", VIPs: []netip.Addr{addr(vip4)}, Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: many(1)}}},
	} {
		tab := table(t)
		tab.SetCluster(Cluster{Nodes: nodes().Nodes, Services: []Service{s}})
		if _, v := tab.Resolve(Query{Protocol: TCP, Dst: ap(vip4 + ":80")}); v != NoRoute {
			t.Errorf("%+v: %v", s, v)
		}
	}
}

func TestNamesThatDNSCannotHaveAreIgnored(t *testing.T) {
	for _, s := range []Service{
		{Name: "d/Web"}, {Name: "d/a.b"}, {Name: "web"}, {Name: "d/"}, {Name: "d/-a"}, {Name: "d/a", Alias: "Example.com"}, {Name: "d/a", Alias: "a..b"}, {Name: "d/a", Alias: "exa mple"},
	} {
		if s.Alias == "" {
			s.VIPs = []netip.Addr{addr(vip4)}
		}
		tab := table(t)
		if r := tab.SetCluster(Cluster{Services: []Service{s}}); r.Ignored != 1 || len(tab.cluster.Load().services) != 0 {
			t.Errorf("%+v: %+v", s, r)
		}
		if name, ok := tab.NameOf(addr(vip4)); ok {
			t.Errorf("%s has the name %s", vip4, name)
		}
	}
	c := nodes()
	c.Services = []Service{{Name: "d/db", Headless: true, Ports: []Port{{Protocol: TCP, Port: 1, Endpoints: []Endpoint{host("db_0.evil", podB+":1")}}}}}
	tab := table(t)
	tab.SetCluster(c)
	if v, _ := tab.Service("d", "db"); len(v.Hosts) != 1 || v.Hosts[0].Name != "10-81-2-2" {
		t.Errorf("%+v", v)
	}
}

func TestNamesOfOneAddressGoToTheSmallerService(t *testing.T) {
	for range 5 {
		c := nodes()
		for _, name := range []string{"d/z", "d/a", "d/m"} {
			c.Services = append(c.Services, Service{Name: name, Headless: true, Ports: []Port{{Protocol: TCP, Port: 1, Endpoints: []Endpoint{at(podB + ":1")}}}})
		}
		tab := table(t)
		tab.SetCluster(c)
		if got, _ := tab.NameOf(addr(podB)); got != "10-81-2-2.a.d.svc" {
			t.Error(got)
		}
	}
}

func TestViewsAreBounded(t *testing.T) {
	var crowd []Endpoint
	for i := range maxPerPort + 5 {
		crowd = append(crowd, Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 81, byte(i >> 8), byte(i)}), 80), Host: "one"})
	}
	var c Cluster
	for i := range 3 {
		c.Services = append(c.Services, Service{Name: fmt.Sprint("a/crowd", i), Headless: true, Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: crowd}}})
	}
	tab := table(t)
	r := tab.SetCluster(c)
	if v, _ := tab.Service("a", "crowd0"); r.Endpoints != 3*maxPerPort || r.Ignored != 3 || len(v.Hosts) != 1 || len(v.Addrs) != maxPerPort {
		t.Errorf("%d endpoints, %d ignored; %d hosts", r.Endpoints, r.Ignored, len(v.Hosts))
	}
}

func TestViewsTakeNoMemory(t *testing.T) {
	tab := table(t)
	tab.SetCluster(large())
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := tab.Service("d", "s-0007"); !ok {
			t.Error("it is not there")
		}
		tab.PodNamed("d", addr(podB))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
