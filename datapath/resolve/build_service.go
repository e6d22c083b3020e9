// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
)

func (b *builder) addServices(services []Service) {
	for i := range services {
		s := &services[i]
		vips := b.claim(s)
		if len(vips) > 0 {
			b.report.Services++
			b.addPorts(s, vips)
		}
		if len(vips) > 0 || s.Headless || s.Alias != "" {
			b.addView(s, vips)
		}
	}
	for i := range services { // last: whoever has an address in the cluster keeps it
		b.addExternal(&services[i])
	}
}

func (b *builder) addPorts(s *Service, vips []netip.Addr) {
	for _, port := range s.Ports {
		proto, ok := port.Protocol.index()
		if !ok || port.Port == 0 {
			b.report.ignore("service %s: %s %d is no port", s.Name, port.Protocol, port.Port)
			continue
		}
		var families [2]*servicePort // IPv4, IPv6: an endpoint serves its own family only
		for _, vip := range vips {
			i := 1
			if vip.Is4() {
				i = 0
			}
			at := netip.AddrPortFrom(vip, port.Port)
			if _, twice := b.s.ports[proto][at]; twice {
				b.report.ignore("service %s: %s port %d is named twice", s.Name, port.Protocol, port.Port)
				continue
			}
			if families[i] == nil {
				families[i] = b.port(s, port.Endpoints, vip.Is4())
			}
			b.s.ports[proto][at] = families[i]
		}
	}
}

// claim takes the addresses that s may have.
func (b *builder) claim(s *Service) (vips []netip.Addr) {
	if s.Headless || s.Alias != "" {
		return nil
	}
	for _, vip := range s.VIPs {
		_, pod := b.s.addrs[vip]
		_, service := b.s.vips[vip]
		if !usable(vip) || pod || service {
			b.report.ignore("service %s: its address %s is unusable, or somebody else's", s.Name, vip)
			continue
		}
		b.s.vips[vip] = s.Name
		vips = append(vips, vip)
	}
	return vips
}

// addExternal keeps the addresses that s has for clients outside, so that
// nothing passes to them as if they were nobody's. Whoever may write a Service
// may claim any address here: it can be refused for it, and nothing else.
func (b *builder) addExternal(s *Service) {
	for _, a := range s.External {
		if !usable(a) || len(b.s.external) >= MaxServices {
			b.report.ignore("service %s: its external address %s is unusable, or one too many", s.Name, a)
			continue
		}
		b.s.external[a] = struct{}{}
	}
}

// candidate is an endpoint that could be used.
type candidate struct {
	endpoint
	hints *Hints
}

// port keeps the endpoints that can be used: those that are ready, or else
// those on their way out that still answer.
func (b *builder) port(s *Service, all []Endpoint, ipv4 bool) *servicePort {
	p := &servicePort{service: s.Name, affinity: s.Affinity}
	ready, leaving := b.ready[:0], b.leaving[:0]
	defer func() { b.ready, b.leaving = ready[:0], leaving[:0] }()
	pods, others := false, false
	for i := range all {
		e := &all[i]
		a := e.Addr.Addr()
		if a.Is4() != ipv4 {
			continue
		}
		if !usable(a) || e.Addr.Port() == 0 {
			b.report.ignore("service %s: %s is no pod's address", s.Name, e.Addr)
			continue
		}
		node, pod := b.carrier(a, e.Node)
		pods, others = pods || pod, others || !pod
		c := candidate{endpoint{e.Addr, node, hashAddr(a)}, e.Hints}
		switch {
		case !pod || !node.IsValid():
		case s.Local && node != b.cfg.Node:
		case e.Terminating:
			leaving = append(leaving, c)
		default:
			ready = append(ready, c)
		}
	}
	p.host = others && !pods
	chosen := ready
	if len(ready) == 0 {
		chosen = leaving
		for i := range chosen {
			chosen[i].hints = nil // hints are about those that are ready
		}
	}
	ordered, near := b.arrange(chosen, s.Local)
	b.keep(p, ordered, near)
	return p
}

// arrange sorts endpoints, those first that hints prefer here, and returns how
// many these are.
func (b *builder) arrange(all []candidate, local bool) ([]candidate, int) {
	slices.SortFunc(all, func(x, y candidate) int { return x.pod.Compare(y.pod) })
	all = slices.CompactFunc(all, func(x, y candidate) bool { return x.pod == y.pod })
	prefers := b.preference(all)
	if local || prefers == nil {
		return all, len(all)
	}
	near := make([]candidate, 0, len(all))
	var far []candidate
	for _, c := range all {
		if prefers(c.hints) {
			near = append(near, c)
		} else {
			far = append(far, c)
		}
	}
	return append(near, far...), len(near)
}

// preference is what hints ask for on this node; nil: they do not count. They
// count as for kube-proxy (CategorizeEndpoints): when every endpoint has them
// and one at least is for here, those for this node before those for its zone.
func (b *builder) preference(all []candidate) func(*Hints) bool {
	node := func(h *Hints) bool { return slices.Contains(h.Nodes, b.cfg.NodeName) }
	zone := func(h *Hints) bool { return slices.Contains(h.Zones, b.zone) }
	nodes, zones := len(all) > 0 && b.cfg.NodeName != "", len(all) > 0 && b.zone != ""
	forNode, forZone := false, false
	for _, c := range all {
		nodes = nodes && c.hints != nil && len(c.hints.Nodes) > 0
		zones = zones && c.hints != nil && len(c.hints.Zones) > 0
		if !nodes && !zones {
			return nil
		}
		forNode, forZone = forNode || node(c.hints), forZone || zone(c.hints)
	}
	switch {
	case nodes && forNode:
		return node
	case zones && forZone:
		return zone
	}
	return nil
}

// keep gives p its endpoints, within the limits.
func (b *builder) keep(p *servicePort, all []candidate, near int) {
	if most := b.room(); len(all) > most {
		b.report.ignore("service %s: %d endpoints, only %d are kept", p.service, len(all), most)
		all = all[:most]
	}
	p.near = min(near, len(all))
	p.endpoints = make([]endpoint, len(all))
	for i := range all {
		p.endpoints[i] = all[i].endpoint
	}
	b.report.Endpoints += len(all)
}

// room is how many endpoints one more port may have.
func (b *builder) room() int { return min(maxPerPort, MaxEndpoints-b.report.Endpoints) }

// carrier is the node of an endpoint: that of the pod with its address, or the
// one it is said to be on, or the one its prefix belongs to. It is a pod where
// anybody says so, even if its node is not known.
func (b *builder) carrier(a netip.Addr, name string) (node netip.Addr, pod bool) {
	o, owned := b.s.addrs[a]
	if owned && o.node == nodeSelf {
		return netip.Addr{}, false
	}
	if owned && o.node != nodeUnknown {
		return b.s.nodes[o.node], true
	}
	if i, ok := b.nodes[name]; ok {
		return b.s.nodes[i], true
	}
	node, routed := b.s.cidrs.lookup(a)
	return node, owned || routed || name != ""
}
