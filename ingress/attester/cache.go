// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// mutableLife is how long what may change is passed on without asking.
	mutableLife = 2 * time.Second
	// staleLife is how long more while the CDS does not answer. It is no longer
	// than clients believe a proof.
	staleLife = 5 * time.Minute
	// absentLife is how long what was not there is not asked for again.
	absentLife = 2 * time.Second
	// maxDocument is the largest that is passed on, in bytes.
	maxDocument = policy.MaxDenyListEnvelope + 4<<20
	// entryCost is what an entry takes beside its body, in bytes.
	entryCost = 512
	// fetchesAtOnce bounds what waits for the CDS.
	fetchesAtOnce = 16
)

var errTooLarge = errors.New("the document is too large to be passed on")

// document is one of the CDS's, as it was fetched.
type document struct {
	path   string
	body   []byte
	etag   string
	absent bool
	at     time.Time
	kind   kind
}

// cache keeps documents of the CDS, within a budget of bytes.
type cache struct {
	cfg    *Config
	source *source
	rates  *rates
	flight singleflight.Group
	places chan struct{}
	fetch  atomic.Uint64 // fetches, for the status

	chained policy.Digest // the manifest whose predecessors were fetched; warm's own

	changed atomic.Pointer[time.Time] // what is from before is not fresh; nil: nothing changed

	mu      sync.Mutex
	entries map[string]*list.Element
	order   *list.List // of *document, most recently used first
	bytes   int
}

func newCache(cfg *Config, s *source) *cache {
	l := cfg.Limits
	return &cache{
		cfg: cfg, source: s, rates: newRates(rate.Limit(l.Fetches), 2*l.Fetches, rate.Limit(l.ClientFetches), 4*l.ClientFetches),
		places: make(chan struct{}, fetchesAtOnce), entries: map[string]*list.Element{}, order: list.New(),
	}
}

// get returns a document, and whether it is older than it should be.
func (c *cache) get(ctx context.Context, client netip.Prefix, path string, k kind) (d *document, stale bool, err error) {
	held, now := c.held(path), c.cfg.Now()
	if held != nil && c.fresh(held, now) {
		return held, false, nil
	}
	if _, wait := c.rates.take(client, now); wait > 0 {
		err = &tooManyError{wait}
	} else {
		d, err = c.shared(ctx, path, k)
	}
	if err == nil {
		return d, false, nil
	}
	if held != nil && held.age(now) < staleLife { // also that there is none: most clusters have no deny list
		return held, true, nil
	}
	return nil, false, err
}

// age of a document from before the clock was set back is unknown, so large.
func (d *document) age(now time.Time) time.Duration {
	age := now.Sub(d.at)
	if age < 0 {
		return staleLife
	}
	return age
}

func (c *cache) fresh(d *document, now time.Time) bool {
	if d.kind.immutable && !d.absent {
		return true
	}
	life := mutableLife
	if d.absent {
		life = absentLife
	}
	changed := c.changed.Load()
	return d.age(now) < life && (changed == nil || !d.at.Before(*changed))
}

// shared fetches for all who want the same at once. The fetch goes on when the
// first of them leaves.
func (c *cache) shared(ctx context.Context, path string, k kind) (*document, error) {
	done := c.flight.DoChan(path, func() (any, error) { return c.fetched(context.WithoutCancel(ctx), path, k) })
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		d, _ := r.Val.(*document)
		return d, r.Err
	}
}

func (c *cache) fetched(ctx context.Context, path string, k kind) (*document, error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	default:
		return nil, &tooManyError{time.Second}
	}
	c.fetch.Add(1)
	d := &document{path: path, kind: k, at: c.cfg.Now()} // before: it is at least as young
	err := c.source.with(ctx, func(ctx context.Context, docs *client.Documents) (err error) {
		d.body, err = docs.Get(ctx, path)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.absent, d.body = true, nil
	case err != nil:
		return nil, err
	case len(d.body) > maxDocument:
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d", errTooLarge, path, len(d.body), maxDocument)
	}
	d.etag = etagOf(d.body)
	c.keep(d)
	return d, nil
}

func (c *cache) held(path string) *document {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[path]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*document)
}

// keep takes a document in, and forgets those that were used least recently
// while there are too many. What would push out half of the others is not kept.
func (c *cache) keep(d *document) {
	if cost(d) > c.cfg.Limits.CacheBytes/2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[d.path]; ok {
		c.remove(e)
	}
	c.entries[d.path] = c.order.PushFront(d)
	c.bytes += cost(d)
	for c.bytes > c.cfg.Limits.CacheBytes {
		c.remove(c.order.Back())
	}
}

// remove needs the lock.
func (c *cache) remove(e *list.Element) {
	d := c.order.Remove(e).(*document)
	delete(c.entries, d.path)
	c.bytes -= cost(d)
}

// forgetMutable has everything asked for again that may have changed, also
// what is being fetched now. It stays for when the CDS is gone.
func (c *cache) forgetMutable() {
	now := c.cfg.Now()
	c.changed.Store(&now)
}

func cost(d *document) int { return len(d.body) + len(d.path) + entryCost }
