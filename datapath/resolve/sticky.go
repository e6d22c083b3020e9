// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the memory for session affinity: 65,536 clients, about 10 MB. A
// client's entries all lie in one shard, so that one that asks for everything
// crowds out few others; those without a place still get the endpoint that
// hashing gives them, which moves only when endpoints come and go.
const (
	stickyShards   = 64
	stickyPerShard = 1024
	sweepEvery     = time.Second
)

// sticky remembers which endpoint a client has of a Service with session
// affinity. It keeps it while the endpoint can be used and the time-out has not
// passed since the last connection, whatever other endpoints come.
type sticky struct {
	shards [stickyShards]struct {
		mu    sync.Mutex
		had   map[stickyKey]stickyPod
		swept time.Time
	}
}

type stickyKey struct {
	src   netip.Addr
	dst   netip.AddrPort
	proto Protocol
}

type stickyPod struct {
	pod   netip.AddrPort
	until int64 // Unix, nanoseconds
}

// pick returns the endpoint of a client, out of all that can be used.
func (s *sticky) pick(all []endpoint, q *Query, now time.Time, timeout time.Duration) *endpoint {
	key := stickyKey{q.Src, q.Dst, q.Protocol}
	shard := &s.shards[hashAddr(q.Src)%stickyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	before, had := shard.had[key]
	var e *endpoint
	if had && now.UnixNano() < before.until {
		if e = find(all, before.pod); e != nil && e.in(q.Avoid) {
			e = nil
		}
	}
	if e == nil {
		e = closest(all, q)
	}
	if e == nil {
		return nil
	}
	if !had && len(shard.had) >= stickyPerShard {
		if now.Sub(shard.swept) < sweepEvery {
			return e
		}
		shard.swept = now
		for k, v := range shard.had {
			if now.UnixNano() >= v.until {
				delete(shard.had, k)
			}
		}
		if len(shard.had) >= stickyPerShard {
			return e
		}
	}
	if shard.had == nil {
		shard.had = map[stickyKey]stickyPod{}
	}
	shard.had[key] = stickyPod{e.pod, now.Add(timeout).UnixNano()}
	return e
}
