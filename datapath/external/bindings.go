// SPDX-License-Identifier: Apache-2.0

// Package external knows two things about connections that leave the mesh, and
// keeps this invariant: an address is bound to a name only for the pod that the
// node itself gave that answer to, and only for a while. What another pod was
// told, what a pod claims, and what a name meant yesterday count for nothing.
// A daemon's successor may learn what it told its pods, never for longer.
//
// The other thing is which server a TLS ClientHello asks for (Hello).
package external

import (
	"container/heap"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How long a binding lasts beyond the answer it comes from. Applications
// connect a moment after they asked, and many keep answers for longer than they
// may: the floor is for them. The ceiling is the longest that the node lets
// pods keep an answer.
const (
	DefaultFloor   = time.Minute
	DefaultCeiling = time.Hour
)

// Config bounds what is remembered. Zero fields get the default; Now is
// required.
type Config struct {
	PerPod         int           // names of addresses; 2048
	Total          int           // of all pods; 131072
	Floor, Ceiling time.Duration // of how long one lasts
	Now            func() time.Time
}

// Bindings remembers which addresses the node answered its pods with for names
// outside of the cluster. Where there is no room, what would end first gives
// way: first of the pod that learns, then of the pod that has most. Safe for
// concurrent use.
type Bindings struct {
	cfg Config

	mu        sync.RWMutex
	pods      map[string]*podBindings // by UID
	held      int
	displaced uint64
	swept     time.Time
	paused    bool
}

// podBindings is what one pod was told.
type podBindings struct {
	by    map[netip.Addr][]*binding
	queue queue // all of by, what ends first in front
}

// binding is one name of one address.
type binding struct {
	name  string
	addr  netip.Addr
	until time.Time
	at    int // in queue
}

// New makes an empty memory.
func New(cfg Config) *Bindings {
	for p, v := range map[*int]int{&cfg.PerPod: 2048, &cfg.Total: 131072} {
		if *p <= 0 {
			*p = v
		}
	}
	for p, v := range map[*time.Duration]time.Duration{&cfg.Floor: DefaultFloor, &cfg.Ceiling: DefaultCeiling} {
		if *p <= 0 {
			*p = v
		}
	}
	return &Bindings{cfg: cfg, pods: map[string]*podBindings{}, swept: cfg.Now()}
}

// Learn remembers that the node answers the pod with addrs for name, which it
// may keep for ttl. Call it before the pod has the answer; when it reports
// false, the pod must not have it. A binding lasts as long as the longest of its
// answers.
func (b *Bindings) Learn(uid, name string, addrs []netip.Addr, ttl time.Duration) bool {
	now := b.cfg.Now()
	until := now.Add(min(max(ttl, b.cfg.Floor), b.cfg.Ceiling))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused {
		return false
	}
	if now.Sub(b.swept) >= b.cfg.Floor {
		b.sweep(now)
	}
	pod := b.pods[uid]
	if pod == nil {
		pod = &podBindings{by: map[netip.Addr][]*binding{}}
		b.pods[uid] = pod
	}
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if !addr.IsValid() {
			continue
		}
		if known := pod.find(addr, name); known != nil {
			if until.After(known.until) {
				known.until = until
				heap.Fix(&pod.queue, known.at)
			}
			continue
		}
		b.makeRoom(pod)
		pod.add(&binding{name: name, addr: addr, until: until})
		b.held++
	}
	if len(pod.queue) == 0 {
		delete(b.pods, uid)
	}
	return true
}

// Names returns the names that the node answered the pod with addr for, and
// that still count.
func (b *Bindings) Names(uid string, addr netip.Addr) []string {
	addr = addr.Unmap().WithZone("")
	b.mu.RLock()
	defer b.mu.RUnlock()
	pod := b.pods[uid]
	if pod == nil || len(pod.by[addr]) == 0 {
		return nil
	}
	now := b.cfg.Now()
	names := make([]string, 0, len(pod.by[addr]))
	for _, known := range pod.by[addr] {
		if now.Before(known.until) {
			names = append(names, known.name)
		}
	}
	return names
}

// Forget drops what a pod was told. Its UID never comes back: an answer that is
// still under way when the pod goes is swept when it ends.
func (b *Bindings) Forget(uid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if pod := b.pods[uid]; pod != nil {
		b.held -= len(pod.queue)
		delete(b.pods, uid)
	}
}

// Stats is a snapshot of what is remembered.
type Stats struct {
	Held      int    // names of addresses
	Displaced uint64 // that gave way before their time
}

// Stats returns a snapshot.
func (b *Bindings) Stats() Stats {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return Stats{Held: b.held, Displaced: b.displaced}
}

// makeRoom drops at most one binding. Callers hold mu.
func (b *Bindings) makeRoom(pod *podBindings) {
	from := pod
	switch {
	case len(pod.queue) >= b.cfg.PerPod:
	case b.held >= b.cfg.Total:
		for _, other := range b.pods {
			if len(other.queue) > len(from.queue) {
				from = other
			}
		}
	default:
		return
	}
	if len(from.queue) == 0 {
		return
	}
	from.drop(from.queue[0])
	b.held--
	b.displaced++
}

// sweep drops what is over, of pods that learn nothing more too. Callers hold
// mu.
func (b *Bindings) sweep(now time.Time) {
	b.swept = now
	for uid, pod := range b.pods {
		for len(pod.queue) > 0 && !now.Before(pod.queue[0].until) {
			pod.drop(pod.queue[0])
			b.held--
		}
		if len(pod.queue) == 0 {
			delete(b.pods, uid)
		}
	}
}

func (p *podBindings) find(addr netip.Addr, name string) *binding {
	for _, known := range p.by[addr] {
		if known.name == name {
			return known
		}
	}
	return nil
}

func (p *podBindings) add(b *binding) {
	p.by[b.addr] = append(p.by[b.addr], b)
	heap.Push(&p.queue, b)
}

func (p *podBindings) drop(b *binding) {
	heap.Remove(&p.queue, b.at)
	left := slices.DeleteFunc(p.by[b.addr], func(o *binding) bool { return o == b })
	if len(left) == 0 {
		delete(p.by, b.addr)
	} else {
		p.by[b.addr] = left
	}
}

// queue is a heap.Interface.
type queue []*binding

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].until.Before(q[j].until) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	b := x.(*binding)
	b.at = len(*q)
	*q = append(*q, b)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
