// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// snapshot is one immutable table of a cluster.
type snapshot struct {
	nodes      []netip.Addr // where tunnels go, by the number that an owner has
	namespaces []string
	addrs      map[netip.Addr]owner  // of pods and nodes
	vips       map[netip.Addr]string // of Services: namespace/name
	ports      [2]map[netip.AddrPort]*servicePort
	cidrs      *prefixes
	external   map[netip.Addr]struct{}

	services map[nameKey]*ServiceView
	hosts    map[netip.Addr]hostName // of headless Services
}

// owner says whose an address is, in numbers: there is one for every pod.
type owner struct{ node, namespace uint32 }

// Numbers of nodes that are none.
const (
	nodeSelf    uint32 = iota // the address is a node's own
	nodeUnknown               // of a pod whose node nobody knows
	firstNode
)

// builder makes a snapshot. Conflicts end the same way whatever order things
// came in: an address is first of all a node's, then a pod's, then a Service's,
// and among equals the smaller name has it.
type builder struct {
	cfg        Config
	report     Report
	zone       string            // of this node
	nodes      map[string]uint32 // by name
	namespaces map[string]uint32
	s          *snapshot

	ready, leaving []candidate // of one port at a time
}

func build(cfg Config, c Cluster) (*snapshot, Report) {
	b := &builder{
		cfg: cfg, nodes: make(map[string]uint32, len(c.Nodes)), namespaces: map[string]uint32{},
		s: &snapshot{
			nodes:    make([]netip.Addr, firstNode, len(c.Nodes)+int(firstNode)),
			addrs:    make(map[netip.Addr]owner, len(c.Pods)+2*len(c.Nodes)),
			vips:     make(map[netip.Addr]string, len(c.Services)),
			external: map[netip.Addr]struct{}{},
			services: make(map[nameKey]*ServiceView, len(c.Services)),
			hosts:    map[netip.Addr]hostName{},
		},
	}
	b.s.ports[0], b.s.ports[1] = make(map[netip.AddrPort]*servicePort, len(c.Services)), map[netip.AddrPort]*servicePort{}
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
	b.s.addrs[b.cfg.Node] = owner{node: nodeSelf}
	for _, n := range nodes {
		for _, a := range n.Addrs {
			b.s.addrs[a] = owner{node: nodeSelf}
		}
		if usable(n.Addr) {
			b.s.addrs[n.Addr] = owner{node: nodeSelf}
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
		if n.Name == b.cfg.NodeName {
			b.zone = n.Zone
		}
		b.nodes[n.Name] = uint32(len(b.s.nodes))
		b.s.nodes = append(b.s.nodes, n.Addr)
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

// addPods gives addresses to pods. Those whose node is unknown come last: they
// are reached nowhere, but nobody else may have their addresses.
func (b *builder) addPods(pods []Pod) {
	var lost []Pod
	for _, p := range pods {
		node, known := b.nodes[p.Node]
		if !known {
			b.report.ignore("pod %s: its node %s is not known", p.Name, p.Node)
			lost = append(lost, p)
			continue
		}
		o := owner{node, b.namespace(p.Name)}
		used := false
		for _, a := range p.Addrs {
			switch before, taken := b.s.addrs[a]; {
			case !usable(a):
				b.report.ignore("pod %s: %s is no pod's address", p.Name, a)
			case taken && before.node == nodeSelf:
				b.report.ignore("pod %s: %s belongs to a node", p.Name, a)
			case taken && !p.Leaving:
				b.report.ignore("pod %s: %s belongs to another pod", p.Name, a)
			case taken: // the successor of a pod on its way out: not worth a word
			default:
				b.s.addrs[a], used = o, true
			}
		}
		if used {
			b.report.Pods++
		}
	}
	for _, p := range lost {
		o := owner{nodeUnknown, b.namespace(p.Name)}
		for _, a := range p.Addrs {
			if _, taken := b.s.addrs[a]; !taken && usable(a) {
				b.s.addrs[a] = o
			}
		}
	}
}

// namespace is the number of the namespace in namespace/name.
func (b *builder) namespace(name string) uint32 {
	namespace, _, _ := strings.Cut(name, "/")
	i, ok := b.namespaces[namespace]
	if !ok {
		i = uint32(len(b.s.namespaces))
		namespace = strings.Clone(namespace) // the name is long
		b.namespaces[namespace] = i
		b.s.namespaces = append(b.s.namespaces, namespace)
	}
	return i
}
