// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// recursor asks upstreams, for each name and type once at a time and once in
// the time that the answer lives, however many pods ask.
type recursor struct {
	cfg       Config
	upstreams []*upstream
	first     atomic.Int32  // the upstream to begin with: the last that answered
	asked     atomic.Uint64 // questions sent, for the metrics

	mu      sync.Mutex
	store   store
	flights map[key]*flight
}

// flight is a question that is being asked.
type flight struct {
	done  chan struct{}
	entry *entry // set before done is closed
}

func newRecursor(cfg Config) *recursor {
	r := &recursor{cfg: cfg, store: store{most: cfg.Limits.Cached, entries: map[key]*entry{}}, flights: map[key]*flight{}}
	for _, addr := range cfg.Upstreams {
		r.upstreams = append(r.upstreams, &upstream{addr: addr})
	}
	return r
}

// cached returns what is known of k, and whether that may be answered.
func (r *recursor) cached(k key, now time.Time) (*entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.store.entries[k]
	return e, e != nil && e.fresh(now)
}

// ask returns what upstreams say about k, or nil when ctx ends first or too
// much is being asked already.
func (r *recursor) ask(ctx context.Context, k key, pod *pod) *entry {
	f, e := r.join(ctx, k, pod)
	if f == nil {
		return e
	}
	select {
	case <-f.done:
		return f.entry
	case <-ctx.Done():
		return nil
	}
}

// join returns the flight that asks about k, a new one if there is none, or
// what came in between.
func (r *recursor) join(ctx context.Context, k key, pod *pod) (*flight, *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.store.entries[k]
	if before != nil && before.fresh(r.cfg.Now()) {
		return nil, before
	}
	if f := r.flights[k]; f != nil {
		return f, nil
	}
	if len(r.flights) >= r.cfg.Limits.Questions || !pod.mayBegin() {
		return nil, nil
	}
	f := &flight{done: make(chan struct{})}
	r.flights[k] = f
	// The first that asked may go away; the others still wait.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Limits.Total)
	go func() {
		defer cancel()
		defer pod.ended()
		r.fly(ctx, k, f, before)
	}()
	return f, nil
}

func (r *recursor) fly(ctx context.Context, k key, f *flight, before *entry) {
	a, err := r.find(ctx, k)
	now := r.cfg.Now()
	if err == nil {
		f.entry = keep(a, now)
	} else {
		f.entry = failed(before, now, r.cfg.Limits.Stale)
		r.cfg.Log.Debug("asking for a name outside the cluster failed", "name", k.name, "type", k.qtype, "err", err)
	}
	r.mu.Lock()
	r.store.put(k, f.entry)
	delete(r.flights, k)
	r.mu.Unlock()
	close(f.done)
}

// maxChain is how many names may stand for others on the way to an answer.
const maxChain = 8

var errChain = errors.New("the name stands for too many others, or for itself")

// find asks for k, and for the name it stands for where an upstream leaves it
// at that.
func (r *recursor) find(ctx context.Context, k key) (*answer, error) {
	found, err := r.question(ctx, k)
	for err == nil && found.open && len(found.chain) > 0 {
		if len(found.chain) >= maxChain {
			return nil, errChain
		}
		var rest *response
		rest, err = r.question(ctx, key{found.chain[len(found.chain)-1], k.qtype})
		if err == nil {
			err = found.join(k.name, rest)
		}
	}
	if err != nil {
		return nil, err
	}
	return &found.answer, nil
}
