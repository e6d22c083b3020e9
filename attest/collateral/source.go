// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"context"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// Source answers requests: a Store, a Bundle, or several of them.
type Source interface {
	// Get returns the thing that is named. A stale item, which says so itself,
	// means that no newer one can be had.
	Get(context.Context, Request) (Item, error)
}

// Layered asks one source after the other. It returns the first item that is
// not stale by now, and otherwise the newest of the stale ones.
type Layered struct {
	Sources []Source
	Now     func() time.Time
}

// Get implements Source.
func (l Layered) Get(ctx context.Context, r Request) (Item, error) {
	var best Item
	found, reason := false, missing(r)
	for _, s := range l.Sources {
		item, err := s.Get(ctx, r)
		if err != nil {
			reason = err // that of the last source, the one farthest away
			continue
		}
		if !item.Stale(l.Now()) {
			return item, nil
		}
		if !found || item.NextUpdate.After(best.NextUpdate) {
			best, found = item, true
		}
	}
	if !found {
		return Item{}, reason
	}
	return best, nil
}

// Upstream is where a Store gets what it does not have.
type Upstream interface {
	Fetch(context.Context, Request) (Item, error)
	Delay(Request) time.Duration // before the next Fetch would start
}

// Offline is an Upstream that has nothing.
type Offline struct{}

// Fetch refuses.
func (Offline) Fetch(_ context.Context, r Request) (Item, error) { return Item{}, missing(r) }

// Delay is zero: the refusal comes at once.
func (Offline) Delay(Request) time.Duration { return 0 }

func missing(r Request) error {
	return fail(CodeMissing, r.String(), "nothing", "fetch it where there is Internet access, with 'c8s collateral fetch', and bring it in a bundle")
}

// remembered is a set of refusals that are worth repeating for a while.
type remembered struct {
	limit int
	until map[Request]time.Time
	err   map[Request]error
}

func newRemembered(limit int) *remembered {
	return &remembered{limit: limit, until: make(map[Request]time.Time), err: make(map[Request]error)}
}

// How long a refusal is repeated. A missing thing stays so for a while; a
// server that cannot be reached may be back soon.
const (
	missingFor = 10 * time.Minute
	brokenFor  = 30 * time.Second
)

func (m *remembered) add(r Request, err error, now time.Time) {
	span := brokenFor
	if attest.FailureCode(err) == CodeNotFound {
		span = missingFor
	}
	for old := range m.until { // any: forgetting costs a request
		if len(m.until) < m.limit {
			break
		}
		m.forget(old)
	}
	m.until[r], m.err[r] = now.Add(span), err
}

func (m *remembered) get(r Request, now time.Time) error {
	until, ok := m.until[r]
	if !ok {
		return nil
	}
	// Beyond the longest span, the clock was set back.
	if !now.Before(until) || until.Sub(now) > missingFor {
		m.forget(r)
		return nil
	}
	return m.err[r]
}

func (m *remembered) forget(r Request) {
	delete(m.until, r)
	delete(m.err, r)
}

// Report is what Complete did.
type Report struct {
	Added    []Item  // in the evidence now, and not before
	Problems []error // each an *attest.Failure: what is still missing, and why
}

func (r *Report) problem(err error) { r.Problems = append(r.Problems, err) }

func (r Report) String() string {
	return fmt.Sprintf("%d added, %d problems", len(r.Added), len(r.Problems))
}
