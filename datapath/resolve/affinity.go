// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"time"
)

// Affinity is the endpoint that a client has of a Service.
type Affinity struct {
	Client   netip.Addr // a pod of this node
	Service  netip.AddrPort
	Protocol Protocol
	Endpoint netip.AddrPort
	Left     time.Duration // until it ends, unless the client connects before
}

// Affinities returns what is remembered for session affinity.
func (t *Table) Affinities() (all []Affinity) {
	now := t.cfg.Now()
	for i := range t.sticky.shards {
		shard := &t.sticky.shards[i]
		shard.mu.Lock()
		for k, v := range shard.had {
			if left := time.Duration(v.until - now.UnixNano()); left > 0 {
				all = append(all, Affinity{k.src, k.dst, k.proto, v.pod, left})
			}
		}
		shard.mu.Unlock()
	}
	return all
}

// AdoptAffinity remembers what another daemon did, and reports whether it still
// counts here and had room: of a pod of this node, a Service with session
// affinity and an endpoint that it has now. It ends when Left, or the Service's
// time-out, has passed since then.
func (t *Table) AdoptAffinity(a Affinity, since time.Time) bool {
	proto, ok := a.Protocol.index()
	if !ok || !t.cfg.Local(a.Client) {
		return false
	}
	p := t.cluster.Load().ports[proto][a.Service]
	if p == nil || p.affinity <= 0 || find(p.endpoints[:p.near], a.Endpoint) == nil {
		return false
	}
	until := since.Add(min(a.Left, p.affinity))
	if !t.cfg.Now().Before(until) {
		return false
	}
	return t.sticky.adopt(stickyKey{a.Client, a.Service, a.Protocol}, stickyPod{a.Endpoint, until.UnixNano()})
}

func (s *sticky) adopt(key stickyKey, pod stickyPod) bool {
	shard := &s.shards[hashAddr(key.src)%stickyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if _, had := shard.had[key]; had || len(shard.had) >= stickyPerShard {
		return false
	}
	if shard.had == nil {
		shard.had = map[stickyKey]stickyPod{}
	}
	shard.had[key] = pod
	return true
}
