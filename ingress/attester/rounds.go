// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"time"
)

const (
	// minGap is the least time between two proofs, however often something
	// changes.
	minGap = time.Second
	// How soon a proof that failed is tried again.
	retryMin, retryMax = 500 * time.Millisecond, 15 * time.Second
)

// fate is how the rounds went.
type fate struct {
	fails int
	since time.Time // of the first of them
	err   error
	made  uint64
}

// Run makes proofs until ctx ends.
func (a *Attester) Run(ctx context.Context) error {
	defer a.source.close()
	for ctx.Err() == nil {
		keys := a.cfg.Keys.Changed()
		err := a.Prove(ctx)
		if ctx.Err() != nil {
			break
		}
		a.pause(ctx, a.wait(err), keys)
	}
	return ctx.Err()
}

// Prove makes one round: proofs for all keys, or none. Run calls it.
func (a *Attester) Prove(ctx context.Context) error {
	next, err := a.round(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		// First: who sees the new proof finds what it is to be judged by.
		was, of := a.shown.Load().word()
		is, by := next.word()
		if is != was || by != of {
			a.cache.forgetMutable()
		}
		a.shown.Store(next)
		a.cache.warm(ctx, next)
	}
	a.note(err)
	return err
}

// note writes down what became of a round.
func (a *Attester) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := &a.fate
	if err == nil {
		if f.fails > 0 {
			a.cfg.Log.Info("the ingress is proven again", "after", a.cfg.Now().Sub(f.since).Round(time.Second))
		}
		*f = fate{made: f.made + 1}
		return
	}
	if f.fails == 0 {
		f.since = a.cfg.Now()
	}
	f.fails++
	f.err = err
	a.cfg.Log.Warn("the proof could not be renewed, the last one stays", "code", codeOf(err), "err", err, "failures", f.fails)
}

// wait is how long until the next round, if nothing hurries.
func (a *Attester) wait(err error) time.Duration {
	if err == nil {
		return a.between(a.cfg.Refresh*4/5, a.cfg.Refresh)
	}
	a.mu.Lock()
	fails := a.fate.fails
	a.mu.Unlock()
	wait := retryMax
	if fails <= 5 {
		wait = min(wait, retryMin<<(fails-1))
	}
	return a.between(wait/2, wait)
}

func (a *Attester) between(from, to time.Duration) time.Duration {
	return from + time.Duration(a.cfg.Rand(int64(to-from)+1))
}

// pause waits for the time, for a reason to hurry, or for the end of ctx.
func (a *Attester) pause(ctx context.Context, wait time.Duration, keys <-chan struct{}) {
	gap := time.NewTimer(min(minGap, wait))
	defer gap.Stop()
	select {
	case <-ctx.Done():
		return
	case <-gap.C:
	}
	timer := time.NewTimer(wait - min(minGap, wait))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-a.wake:
	case <-keys:
	case <-timer.C:
	}
}
