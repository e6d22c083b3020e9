// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzed makes a cluster out of bytes: few names and addresses, so that they
// collide.
type fuzzed struct{ b []byte }

func (f *fuzzed) next() byte {
	if len(f.b) == 0 {
		return 0
	}
	x := f.b[0]
	f.b = f.b[1:]
	return x
}

func (f *fuzzed) addr() netip.Addr {
	x := f.next()
	pool := []string{nodeA, nodeB, podA, podB, vip4, vip6, "fd81:2::2", "127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "ff02::1", "::ffff:10.81.2.2", "10.81.2.3", "fe80::1%eth0"}
	if i := int(x) % (len(pool) + 2); i < len(pool) {
		return addr(pool[i])
	} else if i == len(pool) {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{10, 81, x, f.next()})
}

func (f *fuzzed) name() string { return string('a' + f.next()%4) }

func (f *fuzzed) port() uint16 { return uint16(f.next() % 3) }

func (f *fuzzed) protocol() Protocol { return []Protocol{TCP, UDP, 0, 132}[f.next()%4] }

// text is a name as it should be, mostly.
func (f *fuzzed) text() string {
	return []string{"a", "b", "", "A", "-", "a.b", "x\x00", strings.Repeat("a", 64), "10-81-2-2"}[f.next()%9]
}

func (f *fuzzed) hints() *Hints {
	switch x := f.next(); x % 4 {
	case 0:
		return &Hints{Zones: []string{f.name()}}
	case 1:
		return &Hints{Nodes: []string{f.name()}, Zones: []string{f.name(), f.name()}}
	}
	return nil
}

func (f *fuzzed) service() Service {
	s := Service{
		Name: f.text() + "/" + f.text(), VIPs: []netip.Addr{f.addr(), f.addr()}, External: []netip.Addr{f.addr()},
		Affinity: time.Duration(f.next()%3) * time.Second, Local: f.next()%2 == 0, Headless: f.next()%3 == 0,
	}
	if f.next()%4 == 0 {
		s.Alias = f.text()
	}
	for range f.next() % 3 {
		p := Port{Name: f.text(), Protocol: f.protocol(), Port: f.port()}
		for range f.next() % 5 {
			p.Endpoints = append(p.Endpoints, Endpoint{
				Addr: netip.AddrPortFrom(f.addr(), f.port()), Node: f.name(), Host: f.text(), Terminating: f.next()%2 == 0, Hints: f.hints(),
			})
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

func (f *fuzzed) cluster() (c Cluster) {
	for range f.next() % 4 {
		prefix, _ := f.addr().Prefix(int(f.next() % 33))
		c.Nodes = append(c.Nodes, Node{Name: f.name(), Zone: f.name(), Addr: f.addr(), Addrs: []netip.Addr{f.addr(), f.addr()}, Pods: []netip.Prefix{prefix}})
	}
	for range f.next() % 6 {
		c.Pods = append(c.Pods, Pod{Name: f.text() + "/" + f.name(), Addrs: []netip.Addr{f.addr(), f.addr()}, Node: f.name(), Leaving: f.next()%2 == 0})
	}
	for range f.next() % 4 {
		c.Services = append(c.Services, f.service())
	}
	return c
}

// claims is what a cluster says, without judging it.
type claims struct {
	pods      map[netip.Addr]bool // of pods
	nodes     map[netip.Addr]bool
	services  map[netip.Addr]bool // of Services, and for clients outside
	times     map[netip.AddrPort]int
	endpoints map[Protocol]map[netip.AddrPort]map[netip.AddrPort]bool
}

func claimed(c Cluster) claims {
	out := claims{
		pods: map[netip.Addr]bool{}, nodes: map[netip.Addr]bool{addr(nodeA): true}, services: map[netip.Addr]bool{}, times: map[netip.AddrPort]int{},
		endpoints: map[Protocol]map[netip.AddrPort]map[netip.AddrPort]bool{TCP: {}, UDP: {}},
	}
	for _, n := range c.Nodes {
		for _, a := range append(n.Addrs, n.Addr) {
			out.nodes[a] = true
		}
	}
	for _, p := range c.Pods {
		for _, a := range p.Addrs {
			out.pods[a] = true
		}
	}
	for _, s := range c.Services {
		for _, a := range s.External {
			out.services[a] = true
		}
		if s.Headless || s.Alias != "" {
			continue
		}
		for _, v := range s.VIPs {
			out.services[v] = true
			for _, p := range s.Ports {
				all := out.endpoints[p.Protocol]
				if all == nil {
					continue
				}
				at := netip.AddrPortFrom(v, p.Port)
				out.times[at]++
				if all[at] == nil {
					all[at] = map[netip.AddrPort]bool{}
				}
				for _, e := range p.Endpoints {
					all[at][e.Addr] = true
				}
			}
		}
	}
	return out
}

// checkNames: what names lead to can be asked for in DNS, and is of the family
// and kind that it should be.
func checkNames(t *testing.T, tab *Table) {
	t.Helper()
	for _, namespace := range []string{"a", "b", "", "A", "a.b"} {
		for _, name := range []string{"a", "b", "-", "10-81-2-2"} {
			v, ok := tab.Service(namespace, name)
			if ok && (!label(namespace) || !label(name)) || v.External != "" && (len(v.Addrs)+len(v.Hosts) > 0 || !dnsName(v.External)) {
				t.Fatalf("%s/%s is %+v", namespace, name, v)
			}
			for _, h := range v.Hosts {
				if !label(h.Name) || len(h.Ports) != len(v.Ports) || len(h.Addrs) == 0 {
					t.Fatalf("%s/%s has the endpoint %+v", namespace, name, h)
				}
			}
			for _, a := range v.Addrs {
				if full, ok := tab.NameOf(a); !usable(a) || !ok || !dnsName(full) {
					t.Fatalf("%s/%s leads to %s, which is %q", namespace, name, a, full)
				}
			}
		}
	}
}

// checkBehind: by name too, only endpoints of the Service are found, and never
// an address that no pod can have.
func checkBehind(t *testing.T, tab *Table, c Cluster) {
	t.Helper()
	said := map[string]map[netip.AddrPort]bool{}
	for _, s := range c.Services {
		if said[s.Name] == nil {
			said[s.Name] = map[netip.AddrPort]bool{}
		}
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				said[s.Name][e.Addr] = p.Protocol == TCP || said[s.Name][e.Addr]
			}
		}
	}
	for name, endpoints := range said {
		namespace, short, _ := strings.Cut(name, "/")
		for _, q := range []ServiceQuery{{Port: 1}, {Port: 2, Avoid: []netip.Addr{addr(podB)}}, {PortName: "a"}, {}} {
			q.Namespace, q.Name = namespace, short
			target, v := tab.Behind(q)
			switch {
			case v != Found && target.Pod.IsValid():
				t.Fatalf("%+v: %v with an answer: %+v", q, v, target)
			case v != Found:
			case !endpoints[target.Pod] || target.Service != name:
				t.Fatalf("%+v became %+v, which is no endpoint of it", q, target)
			case !usable(target.Node) || !usable(target.Pod.Addr()) || target.Pod.Addr() == addr(nodeA) || slices.Contains(q.Avoid, target.Pod.Addr()):
				t.Fatalf("%+v became %+v", q, target)
			}
		}
	}
}

// FuzzClusters: whatever follows whatever, an answer is either the asked
// address itself or an endpoint of a Service with that address, port and
// protocol, and never an address that no pod can have; and nothing that anybody
// claims for a pod or a Service is called nobody's.
func FuzzClusters(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0, 24, 0, 0, 0, 0, 3, 24, 1, 1, 1, 1, 2, 2, 2, 0, 0, 3, 3, 1, 1, 1, 0, 4, 5, 0, 0, 1, 1, 2, 3, 1, 1, 0, 6, 2, 1, 1})
	f.Add([]byte("every pod claims the address of every other pod, and of nodes, and of Services"))
	f.Add(bytes.Repeat([]byte{1, 2, 3, 4, 0, 7, 11, 13, 2}, 60))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := &fuzzed{raw}
		tab := table(t, addr(podA))
		for range 3 {
			c := in.cluster()
			said := claimed(c)
			tab.SetCluster(c)
			checkNames(t, tab)
			checkBehind(t, tab, c)
			for range 8 {
				q := Query{Protocol: in.protocol(), Src: in.addr(), Dst: netip.AddrPortFrom(in.addr(), in.port())}
				target, v := tab.Resolve(q)
				if _, ok := q.Protocol.index(); !ok && v != Undecided {
					t.Fatalf("protocol %d: %v", q.Protocol, v)
				}
				if v != Found {
					checkMiss(t, said, q, target, v)
					continue
				}
				allowed := said.endpoints[q.Protocol][q.Dst]
				pod := target.Pod.Addr()
				switch {
				case target.Pod != q.Dst && !allowed[target.Pod]:
					t.Fatalf("%s became %s, which is no endpoint of it", q.Dst, target.Pod)
				case target.Pod != q.Dst && target.Pod.Addr().Is4() != q.Dst.Addr().Is4():
					t.Fatalf("%s became %s of another family", q.Dst, target.Pod)
				case !usable(target.Node) || !usable(pod):
					t.Fatalf("%s became %s on %s", q.Dst, target.Pod, target.Node)
				case pod == addr(nodeA):
					t.Fatalf("this node's own address became a pod")
				case pod == addr(podA) && target.Node != addr(nodeA):
					t.Fatalf("a local pod is looked for at %s", target.Node)
				}
			}
		}
	})
}

func checkMiss(t *testing.T, said claims, q Query, target Target, v Verdict) {
	t.Helper()
	a := q.Dst.Addr()
	switch {
	case target.Pod.IsValid():
		t.Fatalf("%v with an answer: %+v", v, target)
	case v == NoRoute && usable(a) && (said.pods[a] || said.services[a] || a == addr(nodeA)):
		t.Fatalf("%s is claimed, and called nobody's", a)
	case v == NoRoute && (a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() || !a.IsValid()):
		t.Fatalf("something may be at %s", a)
	case v == HostService && said.times[q.Dst] == 1: // else another Service may have the address
		for e := range said.endpoints[q.Protocol][q.Dst] {
			if said.pods[e.Addr()] && !said.nodes[e.Addr()] && usable(e.Addr()) && e.Port() > 0 && e.Addr().Is4() == a.Is4() {
				t.Fatalf("%s has the pod %s behind it", q.Dst, e)
			}
		}
	}
}
