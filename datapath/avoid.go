// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// For how long endpoints that failed are passed over: at first, and at most
// after each further failure doubled it. Times vary by a quarter, so that nodes
// do not try again together.
const (
	avoidFirst  = 5 * time.Second
	avoidMost   = time.Minute
	avoidForget = 5 * time.Minute // after the time is over and nobody came
	maxAvoided  = 4096
	sidesteps   = 32 // endpoints that one choice passes over
)

// avoidKey is what is passed over: a node for everybody, a node for the pods of
// one workload, or an endpoint for them. What one workload meets says nothing
// about what others would, and must not let it decide for them.
type avoidKey struct {
	node     netip.Addr
	workload string
	proto    resolve.Protocol
	pod      netip.AddrPort
}

// episode is the time from a first failure until it works again.
type episode struct {
	Avoided
	wait     time.Duration
	trying   bool // the time was over, and one connection is trying
	forPeers bool // a verdict about the peer: another manifest may judge otherwise
}

// Avoided is a node or an endpoint that Services pass over for a while.
type Avoided struct {
	Node     netip.Addr     `json:"node"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"` // not valid: all of the node's
	Workload string         `json:"workload,omitempty"`
	Reason   string         `json:"reason"`
	Since    time.Time      `json:"since"`
	Until    time.Time      `json:"until"` // one connection tries it again then
	Failures int            `json:"failures"`
}

// avoided remembers failures, and never says that nothing is left: who asks
// takes an endpoint all the same when there is no other. Safe for concurrent
// use; while nothing failed it costs one atomic load.
type avoided struct {
	self    netip.Addr // this node: its times differ from others'
	now     func() time.Time
	trial   time.Duration // how long one connection may take to try again
	n       atomic.Int32
	mu      sync.Mutex
	entries map[avoidKey]*episode
}

func newAvoided(self netip.Addr, now func() time.Time, trial time.Duration) *avoided {
	return &avoided{self: self, now: now, trial: trial, entries: map[avoidKey]*episode{}}
}

// keysOf is under what target may be passed over for connections of workload.
func keysOf(workload string, proto resolve.Protocol, target resolve.Target) [3]avoidKey {
	return [3]avoidKey{
		{node: target.Node},
		{node: target.Node, workload: workload},
		{node: target.Node, workload: workload, proto: proto, pod: target.Pod},
	}
}

// passes reports whether target is to be passed over, and what of it: the node,
// or the pod. When the time is over, one caller that would try is let through.
func (a *avoided) passes(workload string, proto resolve.Protocol, target resolve.Target, try bool) (netip.Addr, bool) {
	if a.n.Load() == 0 {
		return netip.Addr{}, false
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := keysOf(workload, proto, target)
	for i := range keys {
		if e := a.entries[keys[i]]; e != nil && (now.Before(e.Until) || !try) {
			if keys[i].pod.IsValid() {
				return target.Pod.Addr(), true
			}
			return target.Node, true
		}
	}
	for i := range keys {
		if e := a.entries[keys[i]]; e != nil {
			e.trying, e.Until = true, now.Add(a.trial)
		}
	}
	return netip.Addr{}, false
}

// failed remembers a failure, and reports whether an episode begins with it.
func (a *avoided) failed(key avoidKey, why *Refusal) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[key]
	if e != nil {
		e.Failures++
		if e.trying || !now.Before(e.Until) { // else it failed before the others knew
			e.wait, e.trying = min(2*e.wait, avoidMost), false
			e.Reason, e.forPeers = string(why.Code), why.judged
			e.Until = now.Add(a.vary(key, e))
		}
		return false
	}
	if len(a.entries) >= maxAvoided && a.tidy(now) == 0 {
		return false
	}
	e = &episode{wait: avoidFirst, forPeers: why.judged, Avoided: Avoided{
		Node: key.node, Endpoint: key.pod, Workload: key.workload, Reason: string(why.Code), Since: now, Failures: 1,
	}}
	e.Until = now.Add(a.vary(key, e))
	a.entries[key] = e
	a.n.Store(int32(len(a.entries)))
	return true
}

// works ends the episodes of target, and returns the failures there were.
func (a *avoided) works(workload string, proto resolve.Protocol, target resolve.Target) (failures int) {
	if a.n.Load() == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := keysOf(workload, proto, target)
	for i := range keys {
		if e := a.entries[keys[i]]; e != nil {
			failures += e.Failures
			delete(a.entries, keys[i])
		}
	}
	a.n.Store(int32(len(a.entries)))
	return failures
}

// rejudge forgets verdicts about peers: what they rested on changed.
func (a *avoided) rejudge() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, e := range a.entries {
		if e.forPeers {
			delete(a.entries, key)
		}
	}
	a.n.Store(int32(len(a.entries)))
}

// tidy drops episodes that nobody came back to. Callers hold mu.
func (a *avoided) tidy(now time.Time) (dropped int) {
	for key, e := range a.entries {
		if now.Sub(e.Until) > avoidForget {
			delete(a.entries, key)
			dropped++
		}
	}
	a.n.Store(int32(len(a.entries)))
	return dropped
}

// list returns what is passed over, by node and endpoint.
func (a *avoided) list() []Avoided {
	a.mu.Lock()
	a.tidy(a.now())
	all := make([]Avoided, 0, len(a.entries))
	for _, e := range a.entries {
		all = append(all, e.Avoided)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y Avoided) int {
		return cmp.Or(x.Node.Compare(y.Node), x.Endpoint.Compare(y.Endpoint), cmp.Compare(x.Workload, y.Workload))
	})
	return all
}

// vary is the time for which e counts: its wait, a quarter more or less.
func (a *avoided) vary(key avoidKey, e *episode) time.Duration {
	h := fnv.New32a()
	for _, part := range []netip.Addr{a.self, key.node, key.pod.Addr()} {
		raw := part.As16()
		h.Write(raw[:])
	}
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(e.Failures)))
	h.Write([]byte(key.workload))
	return e.wait*3/4 + time.Duration(uint64(e.wait/2)*uint64(h.Sum32())>>32)
}
