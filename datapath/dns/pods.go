// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// forgetAfter is how long a pod that asks nothing is remembered, and how
	// often that is looked after.
	forgetAfter = 10 * time.Minute
	// A pod's refusals become flow records at this rate; the rest is counted in
	// the next one.
	recordsPerSecond = 5
	recordsBurst     = 20
	namesWindow      = time.Minute
)

// pods keeps what each pod has used of its budgets.
type pods struct {
	limits Limits
	mu     sync.RWMutex
	all    map[string]*pod // by UID
	swept  time.Time
}

// pod is one pod's.
type pod struct {
	limits  Limits
	queries *rate.Limiter
	records *rate.Limiter
	seen    atomic.Int64 // Unix nanoseconds
	waiting atomic.Int32
	asking  atomic.Int32  // questions to upstreams that this pod was the first to need
	unsaid  atomic.Uint32 // refusals that no record told of

	mu    sync.Mutex
	names map[string]struct{} // below wildcards, asked for since began
	began time.Time
}

func newPods(l Limits) pods { return pods{limits: l, all: map[string]*pod{}} }

func (p *pods) of(uid string, now time.Time) *pod {
	p.mu.RLock()
	one := p.all[uid]
	p.mu.RUnlock()
	if one == nil {
		one = p.add(uid, now)
	}
	one.seen.Store(now.UnixNano())
	return one
}

func (p *pods) add(uid string, now time.Time) *pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) > forgetAfter {
		p.swept = now
		for uid, one := range p.all {
			if now.UnixNano()-one.seen.Load() > int64(forgetAfter) {
				delete(p.all, uid)
			}
		}
	}
	one := p.all[uid]
	if one == nil {
		perSecond := p.limits.QueriesPerSecond
		one = &pod{
			limits: p.limits, queries: rate.NewLimiter(rate.Limit(perSecond), 2*perSecond),
			records: rate.NewLimiter(recordsPerSecond, recordsBurst),
		}
		one.seen.Store(now.UnixNano())
		p.all[uid] = one
	}
	return one
}

func (p *pods) forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, uid)
}

func (p *pod) mayQuery(now time.Time) bool { return p.queries.AllowN(now, 1) }

// wait takes a place among the queries that wait for an upstream.
func (p *pod) wait() bool {
	if p.waiting.Add(1) > int32(p.limits.Waiting) {
		p.waiting.Add(-1)
		return false
	}
	return true
}

func (p *pod) waited() { p.waiting.Add(-1) }

// mayBegin takes a place among the questions that are asked for the pod: one
// that asks for many names whose servers are slow leaves room for others.
func (p *pod) mayBegin() bool {
	if p.asking.Add(1) > int32(p.limits.QuestionsPerPod) {
		p.asking.Add(-1)
		return false
	}
	return true
}

func (p *pod) ended() { p.asking.Add(-1) }

// mayAsk bounds how many different names a pod can have the node ask for below
// wildcards: labels are data that reach whoever serves the domain.
func (p *pod) mayAsk(name string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names == nil || now.Sub(p.began) >= namesWindow || now.Before(p.began) {
		p.names, p.began = map[string]struct{}{}, now
	}
	if _, again := p.names[name]; again {
		return true
	}
	if len(p.names) >= p.limits.NamesPerMinute {
		return false
	}
	p.names[name] = struct{}{}
	return true
}
