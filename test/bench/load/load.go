// SPDX-License-Identifier: Apache-2.0

// Package load generates traffic over any dialler and measures what came of
// it: throughput, connection rate, latency, processor time and memory.
//
// Invariant: a number counts only work that was seen to be complete. Bytes
// count when the receiver confirmed them, connections when they were closed
// in order, latencies from the moment a request was due and not from when a
// busy generator got round to sending it. An operation that failed is
// counted as failed and never as fast.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Dial opens one connection to the server under test.
type Dial func(ctx context.Context) (net.Conn, error)

// MessageSize is the size in bytes of a request and of a response.
const MessageSize = 1024

// grace is how long operations that were begun in time may take to finish.
const grace = 10 * time.Second

// Latencies is a set of measured durations.
type Latencies struct{ sorted []time.Duration }

func newLatencies(parts ...[]time.Duration) Latencies {
	all := slices.Concat(parts...)
	slices.Sort(all)
	return Latencies{all}
}

// LatenciesOf is the set of durations that somebody else measured.
func LatenciesOf(d []time.Duration) Latencies { return newLatencies(d) }

// Count is the number of durations measured.
func (l Latencies) Count() int { return len(l.sorted) }

// Quantile returns the smallest measured duration that at least the share q
// of all durations does not exceed (nearest rank); 0 without measurements. q
// lies in 0 to 1.
func (l Latencies) Quantile(q float64) time.Duration {
	n := len(l.sorted)
	if n == 0 {
		return 0
	}
	rank := int(q * float64(n))
	if float64(rank) < q*float64(n) {
		rank++
	}
	return l.sorted[min(max(rank, 1), n)-1]
}

// failures counts failed operations and keeps the first cause.
type failures struct {
	mu    sync.Mutex
	n     int
	first error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == 0 {
		f.first = err
	}
	f.n++
}

// dialAll opens n connections, 64 at a time. On failure it closes those it
// opened.
func dialAll(ctx context.Context, dial Dial, n int, prepare func(net.Conn) error) ([]net.Conn, error) {
	if n < 1 {
		return nil, fmt.Errorf("opening %d connections: want at least one", n)
	}
	conns := make([]net.Conn, n)
	var failed failures
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range conns {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := dial(ctx)
			if err == nil && prepare != nil {
				if err = prepare(c); err != nil {
					c.Close()
				}
			}
			if err != nil {
				failed.add(err)
				return
			}
			conns[i] = c
		})
	}
	wg.Wait()
	if failed.n > 0 {
		closeAll(conns)
		return nil, fmt.Errorf("opening %d connections: %d failed, the first with: %w", n, failed.n, failed.first)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// abortOn closes the connections when ctx ends, so that blocked reads and
// writes return. Call the result when done.
func abortOn(ctx context.Context, conns []net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { closeAll(conns) })
}

// preferCause replaces "use of closed connection" by why it was closed.
func preferCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}
