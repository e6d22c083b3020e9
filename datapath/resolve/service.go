// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// servicePort is one port of a Service, for one address family.
type servicePort struct {
	service   string
	affinity  time.Duration
	host      bool       // what stands behind it is no pod
	endpoints []endpoint // the near ones first, each part by address
	near      int        // how many hints prefer here: all where they do not count
}

type endpoint struct {
	pod  netip.AddrPort
	node netip.Addr
	hash uint64
}

// pick chooses an endpoint that is not to be avoided, a near one if there is
// one; nil when there is none.
func (t *Table) pick(p *servicePort, q *Query) *endpoint {
	near, far := p.endpoints[:p.near], p.endpoints[p.near:]
	if p.affinity <= 0 {
		if e := random(near, q, t.cfg.Rand); e != nil {
			return e
		}
		return random(far, q, t.cfg.Rand)
	}
	if len(near) == 0 {
		return nil
	}
	if e := t.sticky.pick(near, q, t.cfg.Now(), p.affinity); e != nil {
		return e
	}
	return closest(far, q)
}

func random(all []endpoint, q *Query, rand func() uint64) *endpoint {
	n := uint64(len(all))
	if n == 0 {
		return nil
	}
	start := (rand() >> 32) * n >> 32
	for i := range n {
		if e := &all[(start+i)%n]; !e.in(q.Avoid) {
			return e
		}
	}
	return nil
}

// closest is rendezvous hashing: when endpoints come and go, only the sources
// of those move.
func closest(all []endpoint, q *Query) (best *endpoint) {
	src, top := hashAddr(q.Src), uint64(0)
	for i := range all {
		e := &all[i]
		if w := mix(src ^ e.hash); (best == nil || w > top) && !e.in(q.Avoid) {
			best, top = e, w
		}
	}
	return best
}

// find returns the endpoint at pod; all are sorted.
func find(all []endpoint, pod netip.AddrPort) *endpoint {
	i, ok := slices.BinarySearchFunc(all, pod, func(e endpoint, pod netip.AddrPort) int { return e.pod.Compare(pod) })
	if !ok {
		return nil
	}
	return &all[i]
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
