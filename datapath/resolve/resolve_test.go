// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func ap(s string) netip.AddrPort   { return netip.MustParseAddrPort(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	nodeA, nodeB = "10.80.0.1", "10.80.0.2"
	podA, podB   = "10.81.1.2", "10.81.2.2"
	vip4, vip6   = "10.96.0.10", "fd96::10"
)

func table(t testing.TB, local ...netip.Addr) *Table {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	tab, err := New(Config{
		Node: addr(nodeA), NodeName: "a", Rand: r.Uint64, Now: func() time.Time { return epoch },
		Local: func(a netip.Addr) bool { return slices.Contains(local, a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// nodes a and b with one pod each.
func nodes() Cluster {
	return Cluster{
		Nodes: []Node{
			{Name: "a", Addr: addr(nodeA), Addrs: []netip.Addr{addr(nodeA)}, Pods: []netip.Prefix{prefix("10.81.1.0/24")}},
			{Name: "b", Addr: addr(nodeB), Addrs: []netip.Addr{addr(nodeB), addr("fd80::2")}, Pods: []netip.Prefix{prefix("10.81.2.0/24"), prefix("fd81:2::/64")}},
		},
		Pods: []Pod{{Name: "d/a", Addrs: []netip.Addr{addr(podA)}, Node: "a"}, {Name: "d/b", Addrs: []netip.Addr{addr(podB), addr("fd81:2::2")}, Node: "b"}},
	}
}

func service(endpoints ...Endpoint) Service {
	return Service{Name: "d/web", VIPs: []netip.Addr{addr(vip4), addr(vip6)}, Ports: []Port{{Name: "main", Protocol: TCP, Port: 80, Endpoints: endpoints}}}
}

func at(s string) Endpoint { return Endpoint{Addr: ap(s)} }

// outcome spells an answer for table tests.
func outcome(t Target, v Verdict) string {
	if v != Found {
		return []string{
			Undecided: "undecided", NoRoute: "no route", NoNode: "no node", NoEndpoints: "no endpoints", NoServicePort: "no service port",
			HostAddress: "host address", HostService: "host service", ExternalAddress: "external address", Unusable: "unusable",
		}[v]
	}
	s := fmt.Sprintf("%s on %s", t.Pod, t.Node)
	if t.Service != "" {
		s += " for " + t.Service
	}
	return s
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *Cluster)
		static []Route
		local  []netip.Addr
		udp    bool
		dst    string
		want   string
	}{
		{name: "a pod", dst: podB + ":80", want: podB + ":80 on " + nodeB},
		{name: "a pod, IPv6", dst: "[fd81:2::2]:80", want: "[fd81:2::2]:80 on " + nodeB},
		{name: "a pod not listed, by its node's prefix", dst: "10.81.2.99:80", want: "10.81.2.99:80 on " + nodeB},
		{name: "outside", dst: "192.0.2.1:80", want: "no route"},
		{name: "node-local DNS", dst: "169.254.20.10:53", want: "no route"},
		{name: "this node", dst: nodeA + ":10250", want: "host address"},
		{name: "another node", dst: nodeB + ":22", want: "host address"},
		{name: "another address of a node", dst: "[fd80::2]:22", want: "host address"},
		{name: "a pod without its node", change: func(c *Cluster) { c.Nodes = c.Nodes[:1] }, dst: podB + ":80", want: "no node"},
		{name: "a pod of this node that only the runtime knows", local: []netip.Addr{addr("10.99.0.1")}, dst: "10.99.0.1:1", want: "10.99.0.1:1 on " + nodeA},
		{
			name: "the runtime is believed against everybody", local: []netip.Addr{addr(podB)},
			static: []Route{{prefix("10.81.0.0/16"), addr("10.80.0.9")}}, dst: podB + ":80", want: podB + ":80 on " + nodeA,
		},
		{
			name: "a static route wins over the cluster", static: []Route{{prefix("10.81.2.0/24"), addr("10.80.0.9")}},
			dst: podB + ":80", want: podB + ":80 on 10.80.0.9",
		},
		{
			name: "the longest static route wins", static: []Route{{prefix("10.0.0.0/8"), addr("10.80.0.8")}, {prefix("10.81.2.2/32"), addr("10.80.0.9")}},
			dst: podB + ":80", want: podB + ":80 on 10.80.0.9",
		},
		{
			name: "a static route does not make a pod of this node's own address", static: []Route{{prefix("10.80.0.0/24"), addr("10.80.0.9")}},
			dst: nodeA + ":80", want: "host address",
		},
		{name: "a Service", change: with(service(at(podB + ":8080"))), dst: vip4 + ":80", want: podB + ":8080 on " + nodeB + " for d/web"},
		{name: "a Service, IPv6", change: with(service(at(podB+":8080"), at("[fd81:2::2]:8080"))), dst: "[" + vip6 + "]:80", want: "[fd81:2::2]:8080 on " + nodeB + " for d/web"},
		{name: "a Service has no endpoint of its family", change: with(service(at(podB + ":8080"))), dst: "[" + vip6 + "]:80", want: "no endpoints"},
		{name: "a Service's TCP port over UDP", udp: true, change: with(service(at(podB + ":8080"))), dst: vip4 + ":80", want: "no service port"},
		{name: "a UDP port with the number of a TCP port", udp: true, change: with(both()), dst: vip4 + ":80", want: podB + ":5353 on " + nodeB + " for d/web"},
		{name: "a TCP port with the number of a UDP port", change: with(both()), dst: vip4 + ":80", want: podA + ":8080 on " + nodeA + " for d/web"},
		{name: "a pod over UDP", udp: true, dst: podB + ":80", want: podB + ":80 on " + nodeB},
		{name: "loopback", dst: "127.0.0.1:80", want: "unusable"},
		{name: "everybody", udp: true, dst: "255.255.255.255:67", want: "unusable"},
		{name: "cloud metadata", dst: "169.254.169.254:80", want: "no route"},
		{name: "an address for clients outside", change: external("192.0.2.1"), dst: "192.0.2.1:80", want: "external address"},
		{name: "that of a pod is the pod's", change: external(podB), dst: podB + ":80", want: podB + ":80 on " + nodeB},
		{name: "that of a pod by its prefix too", change: external("10.81.2.99"), dst: "10.81.2.99:80", want: "10.81.2.99:80 on " + nodeB},
		{name: "that of a node is the node's", change: external(nodeB), dst: nodeB + ":80", want: "host address"},
		{name: "that of a Service is the Service's", change: external(vip4), dst: vip4 + ":80", want: podB + ":80 on " + nodeB + " for d/web"},
		{name: "a Service cannot take a node's address", change: vipOf(nodeB, podB+":80"), dst: nodeB + ":80", want: "host address"},
		{name: "nor this node's", change: vipOf(nodeA, podB+":80"), dst: nodeA + ":80", want: "host address"},
		{name: "nor that of a pod whose node is unknown", change: func(c *Cluster) { vipOf(podB, podA+":80")(c); c.Nodes = c.Nodes[:1] }, dst: podB + ":80", want: "no node"},
		{name: "an endpoint on a node that nobody knows may be a pod", change: with(service(Endpoint{Addr: ap("192.0.2.7:80"), Node: "z"})), dst: vip4 + ":80", want: "no endpoints"},
		{name: "a pod without its node as an endpoint", change: func(c *Cluster) { with(service(at(podB + ":80")))(c); c.Nodes = c.Nodes[:1] }, dst: vip4 + ":80", want: "no endpoints"},
		{name: "nodes' programs beside a pod", change: with(service(at(nodeB+":80"), at(podB+":80"))), dst: vip4 + ":80", want: podB + ":80 on " + nodeB + " for d/web"},
		{
			name: "a pod elsewhere beside nodes' programs, local traffic only", change: func(c *Cluster) {
				s := service(at(nodeB+":80"), at(podB+":80"))
				s.Local = true
				c.Services = []Service{s}
			}, dst: vip4 + ":80", want: "no endpoints",
		},
		{name: "another port of a Service", change: with(service(at(podB + ":8080"))), dst: vip4 + ":81", want: "no service port"},
		{name: "a Service without endpoints", change: with(service()), dst: vip4 + ":80", want: "no endpoints"},
		{name: "the API server's own Service", change: with(service(at(nodeB + ":6443"))), dst: vip4 + ":80", want: "host service"},
		{name: "an endpoint nobody carries", change: with(service(at("192.0.2.7:80"))), dst: vip4 + ":80", want: "host service"},
		{
			name: "an endpoint whose pod is not listed is where it is said to be", change: with(service(Endpoint{Addr: ap("10.200.0.1:80"), Node: "b"})),
			dst: vip4 + ":80", want: "10.200.0.1:80 on " + nodeB + " for d/web",
		},
		{
			name: "an endpoint is where its pod is", change: with(service(Endpoint{Addr: ap(podB + ":80"), Node: "a"})),
			dst: vip4 + ":80", want: podB + ":80 on " + nodeB + " for d/web",
		},
		{
			name: "an endpoint of this node, as the runtime says", change: with(service(at(podB + ":80"))), local: []netip.Addr{addr(podB)},
			dst: vip4 + ":80", want: podB + ":80 on " + nodeA + " for d/web",
		},
		{
			name: "an endpoint behind a static route", change: with(service(at(podB + ":80"))), static: []Route{{prefix("10.81.2.0/24"), addr("10.80.0.9")}},
			dst: vip4 + ":80", want: podB + ":80 on 10.80.0.9 for d/web",
		},
		{
			name: "an endpoint on its way out is for when there is no other", change: with(service(Endpoint{Addr: ap(podB + ":80"), Terminating: true})),
			dst: vip4 + ":80", want: podB + ":80 on " + nodeB + " for d/web",
		},
		{
			name: "an endpoint on its way out yields", change: with(service(Endpoint{Addr: ap(podB + ":80"), Terminating: true}, at(podA+":80"))),
			dst: vip4 + ":80", want: podA + ":80 on " + nodeA + " for d/web",
		},
		{
			name: "local traffic only", change: func(c *Cluster) {
				s := service(at(podB+":80"), at(podA+":80"))
				s.Local = true
				c.Services = []Service{s}
			}, dst: vip4 + ":80", want: podA + ":80 on " + nodeA + " for d/web",
		},
		{
			name: "local traffic only, nobody here", change: func(c *Cluster) {
				s := service(at(podB + ":80"))
				s.Local = true
				c.Services = []Service{s}
			}, dst: vip4 + ":80", want: "no endpoints",
		},
		{
			name: "a Service cannot take a pod's address", change: func(c *Cluster) {
				s := service(at(podA + ":80"))
				s.VIPs = []netip.Addr{addr(podB)}
				c.Services = []Service{s}
			}, dst: podB + ":80", want: podB + ":80 on " + nodeB,
		},
		{
			name: "of two Services with one address the smaller name has it", change: func(c *Cluster) {
				other := service(at(podA + ":80"))
				other.Name = "d/aaa"
				c.Services = []Service{service(at(podB + ":80")), other}
			}, dst: vip4 + ":80", want: podA + ":80 on " + nodeA + " for d/aaa",
		},
		{
			name: "of two pods with one address the smaller name has it", change: func(c *Cluster) {
				c.Pods = append(c.Pods, Pod{Name: "d/aaa", Addrs: []netip.Addr{addr(podB)}, Node: "a"})
			}, dst: podB + ":80", want: podB + ":80 on " + nodeA,
		},
		{
			name: "a pod on its way out yields its address", change: func(c *Cluster) {
				c.Pods = append(c.Pods, Pod{Name: "d/aaa", Addrs: []netip.Addr{addr(podB)}, Node: "a", Leaving: true})
			}, dst: podB + ":80", want: podB + ":80 on " + nodeB,
		},
		{
			name: "a pod cannot have a node's address", change: func(c *Cluster) {
				c.Pods = append(c.Pods, Pod{Name: "d/x", Addrs: []netip.Addr{addr(nodeB)}, Node: "b"})
			}, dst: nodeB + ":80", want: "host address",
		},
		{
			name: "nobody says where this node is", change: func(c *Cluster) { c.Nodes[0].Addr = addr("10.80.0.66") },
			dst: podA + ":80", want: podA + ":80 on " + nodeA,
		},
		{name: "a node that is nowhere", change: func(c *Cluster) { c.Nodes[1].Addr = netip.Addr{} }, dst: podB + ":80", want: "no node"},
		{name: "a node on the loopback", change: func(c *Cluster) { c.Nodes[1].Addr = addr("127.0.0.1") }, dst: podB + ":80", want: "no node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := table(t, tt.local...)
			tab.SetStatic(tt.static)
			c := nodes()
			if tt.change != nil {
				tt.change(&c)
			}
			tab.SetCluster(c)
			proto := TCP
			if tt.udp {
				proto = UDP
			}
			if got := outcome(tab.Resolve(Query{Protocol: proto, Src: addr(podA), Dst: ap(tt.dst)})); got != tt.want {
				t.Errorf("%s: %s, want %s (%+v)", tt.dst, got, tt.want, tab.Report())
			}
		})
	}
}

func with(s ...Service) func(*Cluster) { return func(c *Cluster) { c.Services = s } }

// both has one number for a TCP and a UDP port.
func both() Service {
	s := service(at(podA + ":8080"))
	s.Ports = append(s.Ports, Port{Name: "dns", Protocol: UDP, Port: 80, Endpoints: []Endpoint{at(podB + ":5353")}})
	return s
}

// external is a Service with an address for clients outside.
func external(a string) func(*Cluster) {
	s := service(at(podB + ":80"))
	s.External = []netip.Addr{addr(a)}
	return with(s)
}

// vipOf is a Service with a chosen address.
func vipOf(vip, endpoint string) func(*Cluster) {
	s := service(at(endpoint))
	s.VIPs = []netip.Addr{addr(vip)}
	return with(s)
}

func TestNothingIsFoundWithoutAProtocol(t *testing.T) {
	tab := table(t, addr(podA))
	c := nodes()
	with(service(at(podB + ":80")))(&c)
	tab.SetCluster(c)
	for _, proto := range []Protocol{0, 1, 132} {
		for _, dst := range []string{podA + ":1", podB + ":1", vip4 + ":80", "192.0.2.1:1", nodeB + ":1"} {
			if target, v := tab.Resolve(Query{Protocol: proto, Dst: ap(dst)}); v != Undecided || v.MeansNoPod() {
				t.Errorf("%s over %d: %v %+v", dst, proto, v, target)
			}
		}
	}
}

// What may pass to the outside, where operators signed it, is listed here and
// nowhere else: a new verdict is none of it.
func TestOnlyWhatNobodyClaimsMeansNoPod(t *testing.T) {
	for v := range Verdict(255) {
		if want := v == NoRoute || v == HostAddress || v == HostService; v.MeansNoPod() != want {
			t.Errorf("verdict %d: %v", v, !want)
		}
	}
}

func TestAddressesThatNoPodHasAreIgnored(t *testing.T) {
	for _, bad := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:10.81.2.9"} {
		a := addr(bad)
		c := nodes()
		c.Pods = append(c.Pods, Pod{Name: "d/x", Addrs: []netip.Addr{a}, Node: "b"})
		s := service(Endpoint{Addr: netip.AddrPortFrom(a, 80), Node: "b"})
		s.VIPs = append(s.VIPs, a)
		c.Services = []Service{s}
		tab := table(t)
		r := tab.SetCluster(c)
		if r.Ignored < 3 || len(r.Examples) == 0 {
			t.Errorf("%s: %+v", bad, r)
		}
		for _, dst := range []string{netip.AddrPortFrom(a, 80).String(), vip4 + ":80", "[" + vip6 + "]:80"} {
			if target, v := tab.Resolve(Query{Protocol: TCP, Src: addr(podA), Dst: ap(dst)}); v == Found {
				t.Errorf("%s as %s: %+v", bad, dst, target)
			}
		}
	}
}

func TestNodesAreKnownByTheirAddresses(t *testing.T) {
	tab := table(t)
	want := func(when string, known ...string) {
		t.Helper()
		for _, a := range []string{nodeA, nodeB, "fd80::2", "10.80.0.3", podA, podB, vip4, "192.0.2.1"} {
			if got := tab.Node(addr(a)); got != slices.Contains(known, a) {
				t.Errorf("%s: %s is a node's: %t", when, a, got)
			}
		}
	}
	want("empty", nodeA)
	tab.SetStatic([]Route{{Prefix: prefix("10.81.3.0/24"), Node: addr("10.80.0.3")}})
	want("static", nodeA, "10.80.0.3")
	c := nodes()
	c.Services = []Service{service(at(podB + ":80"))}
	tab.SetCluster(c)
	want("both", nodeA, "10.80.0.3", nodeB, "fd80::2")
	tab.SetStatic(nil)
	tab.SetCluster(Cluster{})
	want("nothing left", nodeA)
}

func TestTablesAreBounded(t *testing.T) {
	c := nodes()
	for i := range MaxServices + 10 {
		c.Services = append(c.Services, Service{Name: fmt.Sprintf("d/%06d", i), VIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)})}})
	}
	var crowd []Endpoint
	for i := range maxPerPort + 5 {
		crowd = append(crowd, Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 81, byte(i >> 8), byte(i)}), 80), Node: "b"})
	}
	c.Services = append(c.Services, Service{Name: "a/crowd", VIPs: []netip.Addr{addr(vip4)}, Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: crowd}}})
	r := table(t).SetCluster(c)
	if r.Services > MaxServices || r.Endpoints > maxPerPort || r.Ignored < 12 || len(r.Examples) > maxExamples {
		t.Errorf("%d services, %d endpoints, %d ignored: %s", r.Services, r.Endpoints, r.Ignored, strings.Join(r.Examples, "; "))
	}
}

// A million endpoints are what a table holds at most, whoever says more.
func TestAMillionEndpoints(t *testing.T) {
	c := nodes()
	for i := range MaxEndpoints/maxPerPort + 2 {
		var all []Endpoint
		for j := range maxPerPort {
			all = append(all, Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100 + byte(j>>16), byte(j >> 8), byte(j)}), uint16(i+1)), Node: "b"})
		}
		s := Service{Name: fmt.Sprintf("d/%06d", i), VIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}}
		s.Headless = i%10 == 1
		s.Ports = []Port{{Protocol: TCP, Port: 80, Endpoints: all}}
		c.Services = append(c.Services, s)
	}
	tab := table(t)
	if r := tab.SetCluster(c); r.Endpoints != MaxEndpoints || r.Ignored != 2 {
		t.Errorf("%d endpoints, %d ignored", r.Endpoints, r.Ignored)
	}
	if _, v := tab.Resolve(Query{Protocol: TCP, Src: addr(podA), Dst: ap("10.96.0.100:80")}); v != NoEndpoints || v.MeansNoPod() {
		t.Errorf("a Service that found no place is %v", v)
	}
}

func TestTheConfigurationMustBeWhole(t *testing.T) {
	for _, cfg := range []Config{{}, {Node: addr(nodeA), Rand: rand.Uint64}, {Node: addr(nodeA), Now: time.Now}, {Rand: rand.Uint64, Now: time.Now}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
