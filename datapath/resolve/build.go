// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"net/netip"
	"slices"
)

// snapshot is one immutable table of a cluster.
type snapshot struct {
	addrs map[netip.Addr]netip.Addr // of pods: their node; of nodes: hostAddr
	vips  map[netip.Addr]struct{}
	ports map[netip.AddrPort]*servicePort
	cidrs *prefixes
}

// hostAddr marks an address as a node's own; no node is reached at it.
var hostAddr = netip.IPv6Unspecified()

// builder makes a snapshot. Conflicts end the same way whatever order things
// came in: an address is first of all a node's, then a pod's, then a Service's,
// and among equals the smaller name has it.
type builder struct {
	cfg    Config
	report Report
	nodes  map[string]netip.Addr // by name: where tunnels go
	s      *snapshot
}

func build(cfg Config, c Cluster) (*snapshot, Report) {
	b := &builder{cfg: cfg, nodes: make(map[string]netip.Addr, len(c.Nodes)), s: &snapshot{
		addrs: make(map[netip.Addr]netip.Addr, len(c.Pods)+2*len(c.Nodes)),
		vips:  make(map[netip.Addr]struct{}, len(c.Services)),
		ports: make(map[netip.AddrPort]*servicePort, len(c.Services)),
	}}
	b.addNodes(limit(b, "nodes", c.Nodes, MaxNodes, func(x, y Node) int { return cmp.Compare(x.Name, y.Name) }))
	b.addPods(limit(b, "pods", c.Pods, MaxPods, func(x, y Pod) int {
		if x.Leaving != y.Leaving {
			if y.Leaving {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.Name, y.Name)
	}))
	b.addServices(limit(b, "services", c.Services, MaxServices, func(x, y Service) int { return cmp.Compare(x.Name, y.Name) }))
	return b.s, b.report
}

func limit[T any](b *builder, what string, all []T, most int, order func(x, y T) int) []T {
	slices.SortStableFunc(all, order)
	if len(all) > most {
		b.report.ignore("%d of %d %s: a table holds at most %d", len(all)-most, len(all), what, most)
		b.report.Ignored += len(all) - most - 1
		all = all[:most]
	}
	return all
}

func (b *builder) addNodes(nodes []Node) {
	b.s.addrs[b.cfg.Node] = hostAddr
	for _, n := range nodes {
		for _, a := range n.Addrs {
			b.s.addrs[a] = hostAddr
		}
		if usable(n.Addr) {
			b.s.addrs[n.Addr] = hostAddr
		}
	}
	var routes []Route
	for _, n := range nodes {
		if n.Name == b.cfg.NodeName {
			n.Addr = b.cfg.Node // this node knows better
		}
		if _, twice := b.nodes[n.Name]; twice || !usable(n.Addr) {
			b.report.ignore("node %s: no usable address (%s), or named twice", n.Name, n.Addr)
			continue
		}
		b.nodes[n.Name] = n.Addr
		b.report.Nodes++
		for _, p := range n.Pods {
			if p != p.Masked() || !usable(p.Addr()) {
				b.report.ignore("node %s: its pods cannot have the addresses %s", n.Name, p)
				continue
			}
			routes = append(routes, Route{Prefix: p, Node: n.Addr})
		}
	}
	b.s.cidrs = newPrefixes(routes)
}

func (b *builder) addPods(pods []Pod) {
	for _, p := range pods {
		node, known := b.nodes[p.Node]
		if !known {
			b.report.ignore("pod %s: its node %s is not known", p.Name, p.Node)
			continue
		}
		used := false
		for _, a := range p.Addrs {
			switch owner, taken := b.s.addrs[a]; {
			case !usable(a):
				b.report.ignore("pod %s: %s is no pod's address", p.Name, a)
			case owner == hostAddr:
				b.report.ignore("pod %s: %s belongs to a node", p.Name, a)
			case taken && !p.Leaving:
				b.report.ignore("pod %s: %s belongs to another pod", p.Name, a)
			case taken: // the successor of a pod on its way out: not worth a word
			default:
				b.s.addrs[a], used = node, true
			}
		}
		if used {
			b.report.Pods++
		}
	}
}

func (b *builder) addServices(services []Service) {
	for _, s := range services {
		vips := b.claim(s)
		if len(vips) == 0 {
			continue
		}
		b.report.Services++
		for _, port := range s.Ports {
			var families [2]*servicePort // IPv4, IPv6: an endpoint serves its own family only
			for _, vip := range vips {
				i := 1
				if vip.Is4() {
					i = 0
				}
				if families[i] == nil {
					families[i] = b.port(s, port.Endpoints, vip.Is4())
				}
				at := netip.AddrPortFrom(vip, port.Port)
				if _, twice := b.s.ports[at]; twice || port.Port == 0 {
					b.report.ignore("service %s: port %d is named twice, or no port", s.Name, port.Port)
					continue
				}
				b.s.ports[at] = families[i]
			}
		}
	}
}

// claim takes the addresses that s may have.
func (b *builder) claim(s Service) (vips []netip.Addr) {
	for _, vip := range s.VIPs {
		_, pod := b.s.addrs[vip]
		_, service := b.s.vips[vip]
		if !usable(vip) || pod || service {
			b.report.ignore("service %s: its address %s is unusable, or somebody else's", s.Name, vip)
			continue
		}
		b.s.vips[vip] = struct{}{}
		vips = append(vips, vip)
	}
	return vips
}

// port keeps the endpoints that can be used: those that are ready, or else
// those on their way out that still answer.
func (b *builder) port(s Service, all []Endpoint, ipv4 bool) *servicePort {
	p := &servicePort{service: s.Name, affinity: s.Affinity}
	var ready, leaving []endpoint
	for _, e := range all {
		a := e.Addr.Addr()
		if a.Is4() != ipv4 {
			continue
		}
		node := b.carrier(a, e.Node)
		switch {
		case !usable(a) || e.Addr.Port() == 0:
			b.report.ignore("service %s: %s is no pod's address", s.Name, e.Addr)
		case node == hostAddr:
			p.host = true
		case !node.IsValid(): // outside of the cluster, as an API server often is
		case s.Local && node != b.cfg.Node:
		case e.Terminating:
			leaving = append(leaving, endpoint{e.Addr, node, hashAddr(a)})
		default:
			ready = append(ready, endpoint{e.Addr, node, hashAddr(a)})
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, func(x, y endpoint) int { return x.pod.Compare(y.pod) })
	ready = slices.CompactFunc(ready, func(x, y endpoint) bool { return x.pod == y.pod })
	if most := min(maxPerPort, MaxEndpoints-b.report.Endpoints); len(ready) > most {
		b.report.ignore("service %s: %d endpoints, only %d are kept", s.Name, len(ready), most)
		ready = ready[:most]
	}
	p.endpoints = slices.Clip(ready)
	b.report.Endpoints += len(ready)
	return p
}

// carrier is the node of an endpoint: that of the pod with its address, or the
// one it is said to be on, or the one its prefix belongs to.
func (b *builder) carrier(a netip.Addr, name string) netip.Addr {
	if node, ok := b.s.addrs[a]; ok {
		return node
	}
	if node, ok := b.nodes[name]; ok {
		return node
	}
	node, _ := b.s.cidrs.lookup(a)
	return node
}
