// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// RequestResult is what ClosedLoop or OpenLoop measured.
type RequestResult struct {
	Requests  int
	Elapsed   time.Duration
	Latencies Latencies
	// Pacing is how late OpenLoop was in sending; its own inaccuracy, which
	// Latencies contain. Empty for ClosedLoop.
	Pacing Latencies
}

// PerSecond is the rate of completed requests.
func (r RequestResult) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

// Exchange does one request on a connection and returns when the answer is
// complete.
type Exchange func() error

// ClosedLoop sends requests of MessageSize to a Respond server for duration d
// over kept-alive connections: each connection has one request under way and
// sends the next when the answer is complete. It measures capacity; latencies
// of a closed loop hide stalls (see OpenLoop).
func ClosedLoop(ctx context.Context, dial Dial, connections int, d time.Duration) (RequestResult, error) {
	loop, err := NewLoop(ctx, dial, connections, func(c net.Conn) (Exchange, error) {
		buf := make([]byte, MessageSize)
		return func() error { return roundTrip(c, buf) }, nil
	})
	if err != nil {
		return RequestResult{}, err
	}
	defer loop.Close()
	return loop.Run(ctx, d)
}

// Loop is a closed loop over connections that are open and warm.
type Loop struct{ conns []net.Conn }

// talk is a connection and what is said on it.
type talk struct {
	net.Conn
	exchange Exchange
}

// NewLoop opens connections and does one exchange on each. begin prepares a
// connection.
func NewLoop(ctx context.Context, dial Dial, connections int, begin func(net.Conn) (Exchange, error)) (*Loop, error) {
	conns, err := dialAll(ctx, talking(dial, begin), connections, nil)
	if err != nil {
		return nil, fmt.Errorf("measuring requests in a closed loop: %w", err)
	}
	return &Loop{conns}, nil
}

// Close closes the connections.
func (l *Loop) Close() { closeAll(l.conns) }

// Run has every connection do one exchange after the other for duration d.
func (l *Loop) Run(ctx context.Context, d time.Duration) (RequestResult, error) {
	defer abortOn(ctx, l.conns)()
	var (
		wg     sync.WaitGroup
		failed failures
		parts  = make([][]time.Duration, len(l.conns))
		began  = time.Now()
		until  = began.Add(d)
	)
	for i, c := range l.conns {
		exchange := c.(*talk).exchange
		wg.Go(func() {
			for start := time.Now(); start.Before(until); {
				if err := exchange(); err != nil {
					failed.add(err)
					return
				}
				now := time.Now()
				parts[i] = append(parts[i], now.Sub(start))
				start = now
			}
		})
	}
	stuck := time.AfterFunc(d+grace, l.Close)
	defer stuck.Stop()
	wg.Wait()
	elapsed := time.Since(began)
	if failed.n > 0 {
		return RequestResult{}, fmt.Errorf("measuring requests in a closed loop: %d of %d connections failed, the first with: %w",
			failed.n, len(l.conns), preferCause(ctx, failed.first))
	}
	all := newLatencies(parts...)
	return RequestResult{Requests: all.Count(), Elapsed: elapsed, Latencies: all}, nil
}

// talking dials and does one exchange outside the measurement: it pays for what
// only the first one on a connection costs.
func talking(dial Dial, begin func(net.Conn) (Exchange, error)) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		t := &talk{Conn: c}
		if err = c.SetDeadline(time.Now().Add(grace)); err == nil {
			t.exchange, err = begin(c)
		}
		if err == nil {
			err = t.exchange()
		}
		if err == nil {
			err = c.SetDeadline(time.Time{})
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return t, nil
	}
}

func roundTrip(c net.Conn, buf []byte) error {
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf)
	return err
}

// exchangeMessage is one request outside the measurement: it pays for what
// only the first one on a connection costs.
func exchangeMessage(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
		return err
	}
	if err := roundTrip(c, make([]byte, MessageSize)); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}
