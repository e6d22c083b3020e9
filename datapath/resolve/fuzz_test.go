// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"testing"
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

func (f *fuzzed) cluster() (c Cluster) {
	for range f.next() % 4 {
		prefix, _ := f.addr().Prefix(int(f.next() % 33))
		c.Nodes = append(c.Nodes, Node{Name: f.name(), Addr: f.addr(), Addrs: []netip.Addr{f.addr(), f.addr()}, Pods: []netip.Prefix{prefix}})
	}
	for range f.next() % 6 {
		c.Pods = append(c.Pods, Pod{Name: f.name(), Addrs: []netip.Addr{f.addr(), f.addr()}, Node: f.name(), Leaving: f.next()%2 == 0})
	}
	for range f.next() % 4 {
		s := Service{Name: f.name(), VIPs: []netip.Addr{f.addr(), f.addr()}, Affinity: f.next()%2 == 0, Local: f.next()%2 == 0}
		for range f.next() % 3 {
			p := Port{Port: uint16(f.next() % 3)}
			for range f.next() % 5 {
				p.Endpoints = append(p.Endpoints, Endpoint{Addr: netip.AddrPortFrom(f.addr(), uint16(f.next()%3)), Node: f.name(), Terminating: f.next()%2 == 0})
			}
			s.Ports = append(s.Ports, p)
		}
		c.Services = append(c.Services, s)
	}
	return c
}

// FuzzClusters: whatever follows whatever, an answer is either the asked
// address itself or an endpoint of a Service with that address and port, and
// never an address that no pod can have.
func FuzzClusters(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{2, 0, 24, 0, 0, 0, 0, 3, 24, 1, 1, 1, 1, 2, 2, 2, 0, 0, 3, 3, 1, 1, 1, 0, 4, 5, 0, 0, 1, 1, 2, 3, 1, 1, 0, 6, 2, 1, 1})
	f.Add([]byte("every pod claims the address of every other pod, and of nodes, and of Services"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := &fuzzed{raw}
		tab := table(t, addr(podA))
		for range 3 {
			c := in.cluster()
			allowed := map[netip.AddrPort]map[netip.AddrPort]bool{}
			for _, s := range c.Services {
				for _, v := range s.VIPs {
					for _, p := range s.Ports {
						at := netip.AddrPortFrom(v, p.Port)
						if allowed[at] == nil {
							allowed[at] = map[netip.AddrPort]bool{}
						}
						for _, e := range p.Endpoints {
							allowed[at][e.Addr] = true
						}
					}
				}
			}
			tab.SetCluster(c)
			for range 8 {
				q := Query{Src: in.addr(), Dst: netip.AddrPortFrom(in.addr(), uint16(in.next()%3))}
				target, v := tab.Resolve(q)
				if v != Found {
					if target.Pod.IsValid() {
						t.Fatalf("%v with an answer: %+v", v, target)
					}
					continue
				}
				pod := target.Pod.Addr()
				switch {
				case target.Pod != q.Dst && !allowed[q.Dst][target.Pod]:
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
