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

// ClosedLoop sends requests of MessageSize to a Respond server for duration d
// over kept-alive connections: each connection has one request under way and
// sends the next when the answer is complete. It measures capacity; latencies
// of a closed loop hide stalls (see OpenLoop).
func ClosedLoop(ctx context.Context, dial Dial, connections int, d time.Duration) (RequestResult, error) {
	conns, err := dialAll(ctx, dial, connections, exchangeMessage)
	if err != nil {
		return RequestResult{}, fmt.Errorf("measuring requests in a closed loop: %w", err)
	}
	defer closeAll(conns)
	defer abortOn(ctx, conns)()

	var (
		wg     sync.WaitGroup
		failed failures
		parts  = make([][]time.Duration, len(conns))
		began  = time.Now()
		until  = began.Add(d)
	)
	for i, c := range conns {
		wg.Go(func() {
			buf := make([]byte, MessageSize)
			for start := time.Now(); start.Before(until); {
				if err := roundTrip(c, buf); err != nil {
					failed.add(err)
					return
				}
				now := time.Now()
				parts[i] = append(parts[i], now.Sub(start))
				start = now
			}
		})
	}
	stuck := time.AfterFunc(d+grace, func() { closeAll(conns) })
	defer stuck.Stop()
	wg.Wait()
	elapsed := time.Since(began)
	if failed.n > 0 {
		return RequestResult{}, fmt.Errorf("measuring requests in a closed loop: %d of %d connections failed, the first with: %w",
			failed.n, connections, preferCause(ctx, failed.first))
	}
	l := newLatencies(parts...)
	return RequestResult{Requests: l.Count(), Elapsed: elapsed, Latencies: l}, nil
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
