// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// servicePort is one port of a Service, for one address family.
type servicePort struct {
	service   string
	affinity  bool
	host      bool // it has endpoints on nodes' own addresses
	endpoints []endpoint
}

type endpoint struct {
	pod  netip.AddrPort
	node netip.Addr
	hash uint64
}

// pick chooses an endpoint that is not to be avoided; nil when there is none.
func (p *servicePort) pick(q *Query, rand func() uint64) *endpoint {
	n := uint64(len(p.endpoints))
	if n == 0 {
		return nil
	}
	if p.affinity {
		return p.closest(q)
	}
	start := (rand() >> 32) * n >> 32
	for i := range n {
		if e := &p.endpoints[(start+i)%n]; !e.in(q.Avoid) {
			return e
		}
	}
	return nil
}

// closest is rendezvous hashing: when endpoints come and go, only the sources
// of those move.
func (p *servicePort) closest(q *Query) (best *endpoint) {
	src, top := hashAddr(q.Src), uint64(0)
	for i := range p.endpoints {
		e := &p.endpoints[i]
		if w := mix(src ^ e.hash); (best == nil || w > top) && !e.in(q.Avoid) {
			best, top = e, w
		}
	}
	return best
}

func (e *endpoint) in(avoid []netip.Addr) bool {
	return len(avoid) > 0 && (slices.Contains(avoid, e.pod.Addr()) || slices.Contains(avoid, e.node))
}

// hashAddr spreads addresses; it guards nothing. The same on every node, and
// after a restart.
func hashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return mix(binary.BigEndian.Uint64(b[8:]) ^ mix(binary.BigEndian.Uint64(b[:8])))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
