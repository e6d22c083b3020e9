// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
)

// Route says that pods of a prefix are carried by a node.
type Route struct {
	Prefix netip.Prefix
	Node   netip.Addr
}

// prefixes finds the longest prefix that holds an address: one map lookup for
// each length in use.
type prefixes struct {
	nodes      map[netip.Prefix]netip.Addr
	carriers   map[netip.Addr]struct{} // the same nodes
	len4, len6 []int                   // lengths in use, longest first
}

// newPrefixes keeps the first of two routes for one prefix.
func newPrefixes(routes []Route) *prefixes {
	p := &prefixes{nodes: make(map[netip.Prefix]netip.Addr, len(routes)), carriers: map[netip.Addr]struct{}{}}
	for _, r := range routes {
		prefix := r.Prefix.Masked()
		if _, taken := p.nodes[prefix]; taken || !prefix.IsValid() {
			continue
		}
		p.nodes[prefix] = r.Node
		p.carriers[r.Node] = struct{}{}
		lens := &p.len6
		if prefix.Addr().Is4() {
			lens = &p.len4
		}
		if !slices.Contains(*lens, prefix.Bits()) {
			*lens = append(*lens, prefix.Bits())
		}
	}
	for _, lens := range [][]int{p.len4, p.len6} {
		slices.SortFunc(lens, func(a, b int) int { return b - a })
	}
	return p
}

func (p *prefixes) len() int { return len(p.nodes) }

func (p *prefixes) lookup(addr netip.Addr) (netip.Addr, bool) {
	if p == nil {
		return netip.Addr{}, false
	}
	lens := p.len6
	if addr.Is4() {
		lens = p.len4
	}
	for _, bits := range lens {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if node, ok := p.nodes[prefix]; ok {
			return node, true
		}
	}
	return netip.Addr{}, false
}
