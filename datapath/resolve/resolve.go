// SPDX-License-Identifier: Apache-2.0

// Package resolve says which pod a destination means and which node carries
// it, and keeps this invariant: what it answers is a hint. It names only pods
// that somebody put into it, never an address of a node, of the loopback or of
// a link; and since every answer is checked against the certificate of the pod
// at the other end, a table full of lies can make connections fail, or lead
// them to another pod that the manifest allows on that port, and nothing else.
//
// The table is pure: who fills it (a file, Kubernetes) is not known here.
// Tables are immutable and swapped whole; a lookup takes no lock and no memory,
// except where a Service wants its clients to stay with their endpoints.
package resolve

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
)

// Protocol is an IP protocol number that carries ports. The zero value is none:
// nothing is found for it.
type Protocol uint8

// The protocols that the mesh carries.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String is the name that manifests and flow records use.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "none"
}

// index is where maps by protocol keep it; no protocol has none.
func (p Protocol) index() (int, bool) {
	switch p {
	case TCP:
		return 0, true
	case UDP:
		return 1, true
	}
	return 0, false
}

// Query asks where a connection goes.
type Query struct {
	Protocol Protocol
	Src      netip.Addr // the pod that connects
	Dst      netip.AddrPort
	// Avoid names pods and nodes that just failed: endpoints of a Service there
	// are passed over.
	Avoid []netip.Addr
}

// Target is an answer.
type Target struct {
	Pod     netip.AddrPort // whose certificate the other end must show, and its own port
	Node    netip.Addr     // whose daemon to ask for it
	Service string         // namespace/name; empty where the pod itself was asked for
	Others  bool           // further endpoints are left to try
}

// Verdict is Found, or why there is no answer.
type Verdict uint8

// The verdicts. The zero value refuses, whatever else may be allowed.
const (
	Undecided       Verdict = iota // the question names no protocol
	Found                          // there is a Target
	NoRoute                        // nobody claims the address
	NoNode                         // a pod's address, but nobody knows its node
	NoEndpoints                    // a Service without endpoints that can be used
	NoServicePort                  // a Service that does not have this port
	HostAddress                    // a node's own address
	HostService                    // a Service of programs that are no pods: on nodes' own addresses, or outside of the cluster
	ExternalAddress                // an address that a Service has for clients outside of the cluster
	Unusable                       // an address at which nothing of another machine can be: loopback, multicast, unspecified
)

// MeansNoPod reports whether the destination is, as far as anybody says, no
// pod and nothing that leads to pods: only then may an exception for what is
// outside of the mesh apply. Every doubt is a no.
func (v Verdict) MeansNoPod() bool { return v == NoRoute || v == HostAddress || v == HostService }

// Config is what a Table knows from its node rather than from those who fill
// it. Node, Rand and Now are required.
type Config struct {
	Node     netip.Addr            // where other nodes reach this one
	NodeName string                // as in Cluster.Nodes
	Local    func(netip.Addr) bool // is it a pod of this node, as the runtime says? Must not block; nil knows none
	Rand     func() uint64         // spreads connections; called by many goroutines
	Now      func() time.Time      // for how long clients stay with an endpoint
}

// Table resolves destinations. Safe for concurrent use.
type Table struct {
	cfg     Config
	static  atomic.Pointer[prefixes]
	cluster atomic.Pointer[snapshot]
	report  atomic.Pointer[Report]
	sticky  sticky
}

// New makes an empty table: every destination is NoRoute, except pods of this
// node.
func New(cfg Config) (*Table, error) {
	if !cfg.Node.IsValid() || cfg.Rand == nil || cfg.Now == nil {
		return nil, errors.New("making the routing table: the configuration lacks a part")
	}
	if cfg.Local == nil {
		cfg.Local = func(netip.Addr) bool { return false }
	}
	t := &Table{cfg: cfg}
	t.static.Store(&prefixes{})
	t.cluster.Store(&snapshot{})
	t.report.Store(&Report{})
	return t, nil
}

// SetStatic replaces the static routes. They win over what SetCluster says.
func (t *Table) SetStatic(routes []Route) { t.static.Store(newPrefixes(routes)) }

// SetCluster replaces what is known about the cluster, and owns c from then on.
// What makes no sense is left out and reported.
func (t *Table) SetCluster(c Cluster) Report {
	s, report := build(t.cfg, c)
	t.cluster.Store(s)
	t.report.Store(&report)
	return report
}

// Report is what the last SetCluster returned.
func (t *Table) Report() Report { return *t.report.Load() }

// Static is the number of static routes.
func (t *Table) Static() int { return t.static.Load().len() }

// Resolve says where a connection goes. Pods of this node, as the runtime
// knows them, come first, then static routes, then the cluster.
func (t *Table) Resolve(q Query) (Target, Verdict) {
	proto, ok := q.Protocol.index()
	addr := q.Dst.Addr()
	switch {
	case !ok:
		return Target{}, Undecided
	case t.cfg.Local(addr):
		return Target{Pod: q.Dst, Node: t.cfg.Node}, Found
	case addr == t.cfg.Node:
		return Target{}, HostAddress
	case !usable(addr): // whatever prefix covers it
		return Target{}, elsewhere(addr)
	}
	if node, ok := t.static.Load().lookup(addr); ok {
		return Target{Pod: q.Dst, Node: node}, Found
	}
	s := t.cluster.Load()
	if p := s.ports[proto][q.Dst]; p != nil {
		return t.endpoint(p, &q)
	}
	return s.place(q.Dst)
}

// Node reports whether an address is this node's, one that a static route leads
// to, or one that the cluster says a node has.
func (t *Table) Node(addr netip.Addr) bool {
	if addr == t.cfg.Node {
		return true
	}
	if _, ok := t.static.Load().carriers[addr]; ok {
		return true
	}
	o, ok := t.cluster.Load().addrs[addr]
	return ok && o.node == nodeSelf
}

// place finds the pod at dst, or what else has the address.
func (s *snapshot) place(dst netip.AddrPort) (Target, Verdict) {
	addr, missing := dst.Addr(), NoRoute
	if o, ok := s.addrs[addr]; ok {
		switch o.node {
		case nodeSelf:
			return Target{}, HostAddress
		case nodeUnknown:
			missing = NoNode
		default:
			return Target{Pod: dst, Node: s.nodes[o.node]}, Found
		}
	}
	if _, ok := s.vips[addr]; ok {
		return Target{}, NoServicePort
	}
	if node, ok := s.cidrs.lookup(addr); ok {
		return Target{Pod: dst, Node: node}, Found
	}
	if _, ok := s.external[addr]; ok {
		missing = ExternalAddress
	}
	return Target{}, missing
}

// elsewhere is what an address means that no pod can have: those of a link,
// like cloud metadata, are nobody's; nothing may ever lead to the others.
func elsewhere(addr netip.Addr) Verdict {
	if addr.IsLinkLocalUnicast() && addr.Zone() == "" && !addr.Is4In6() {
		return NoRoute
	}
	return Unusable
}

func (t *Table) endpoint(p *servicePort, q *Query) (Target, Verdict) {
	e := t.pick(p, q)
	if e == nil {
		if len(p.endpoints) == 0 && p.host {
			return Target{Service: p.service}, HostService
		}
		return Target{Service: p.service}, NoEndpoints
	}
	return Target{Pod: e.pod, Node: t.carrierOf(e), Service: p.service, Others: len(q.Avoid)+1 < len(p.endpoints)}, Found
}
