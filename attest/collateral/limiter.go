// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Clock is the time and how to wait for it.
type Clock struct {
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error // returns early with the context's error
}

// SystemClock is the machine's clock.
func SystemClock() Clock {
	return Clock{Now: time.Now, Sleep: func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return nil
		}
	}}
}

const (
	firstPause    = time.Second
	maxPause      = 5 * time.Minute // of our own accord
	maxRetryAfter = time.Hour       // that a server can impose
)

// limiter spaces and pauses requests per host. All requests share it, so that
// a server's refusal of one holds back the others.
type limiter struct {
	clock Clock
	mu    sync.Mutex
	hosts map[string]*host // as many as there are endpoints
}

type host struct {
	slot     time.Time // when the next spaced request may start
	until    time.Time // no request before
	failures uint      // in a row
}

func (l *limiter) host(name string) *host {
	h, ok := l.hosts[name]
	if !ok {
		h = &host{}
		l.hosts[name] = h
	}
	// A clock set back must not turn a pause of minutes into one of years.
	limit := l.clock.Now().Add(maxRetryAfter)
	if h.until.After(limit) {
		h.until = limit
	}
	if h.slot.After(limit) {
		h.slot = limit
	}
	return h
}

// delay is how long a request that starts now would wait.
func (l *limiter) delay(name string, spacing time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, now := l.host(name), l.clock.Now()
	at := h.until
	if spacing > 0 && h.slot.After(at) {
		at = h.slot
	}
	return max(at.Sub(now), 0)
}

// wait takes a slot and waits for it, or refuses without waiting when it comes
// after the deadline.
func (l *limiter) wait(ctx context.Context, name string, spacing time.Duration, deadline time.Time) error {
	d, err := l.reserve(name, spacing, deadline)
	for err == nil && d > 0 {
		if err := l.clock.Sleep(ctx, d); err != nil {
			return unreachable(name, err)
		}
		d, err = l.reserve(name, 0, deadline) // another request may have been told to pause
	}
	return err
}

func (l *limiter) reserve(name string, spacing time.Duration, deadline time.Time) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, now := l.host(name), l.clock.Now()
	at := now
	if h.until.After(at) {
		at = h.until
	}
	if spacing > 0 && h.slot.After(at) {
		at = h.slot
	}
	if at.After(deadline) {
		return 0, throttled(name, at.Sub(now))
	}
	if spacing > 0 {
		h.slot = at.Add(spacing)
	}
	return at.Sub(now), nil
}

// failed pauses the host: for as long as it asks, or twice as long each time.
// Requests that were under way together count as one failure.
func (l *limiter) failed(name string, started time.Time, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, now := l.host(name), l.clock.Now()
	if h.failures == 0 || !started.Before(h.until) {
		h.failures++
	}
	pause := maxPause
	if shift := h.failures - 1; shift < 16 {
		pause = min(firstPause<<shift, maxPause)
	}
	if retryAfter > 0 {
		pause = min(retryAfter, maxRetryAfter)
	}
	if until := now.Add(pause); until.After(h.until) {
		h.until = until
	}
}

func (l *limiter) succeeded(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.host(name).failures = 0
}

func throttled(name string, wait time.Duration) error {
	return fail(CodeThrottled, "an answer in the time there is", fmt.Sprintf("%s wants a pause of %s", short(name), wait.Round(time.Second)),
		"try again later, or bring a bundle made by 'c8s collateral bundle'")
}

func unreachable(name string, err error) error {
	return fail(CodeUnreachable, "an answer from "+short(name), short(err.Error()),
		"check the network, name a mirror, or bring a bundle made by 'c8s collateral bundle'")
}
