// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ConnectResult is what Connections measured.
type ConnectResult struct {
	Completed int
	Failed    int
	FirstErr  error // of the failed ones
	Elapsed   time.Duration
	Latencies Latencies // from the start of the dial to the server's end of stream
	// Gap is the longest time in which none was completed.
	Gap time.Duration
}

// PerSecond is the rate of completed connections.
func (r ConnectResult) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Completed) / r.Elapsed.Seconds()
}

// Connections opens connections to a Once server for duration d, the given
// number at a time; each exchanges one byte and is closed. Failures are
// counted; it returns an error only when ctx ended or nothing succeeded.
func Connections(ctx context.Context, dial Dial, workers int, d time.Duration) (ConnectResult, error) {
	stop := make(chan struct{})
	defer time.AfterFunc(d, func() { close(stop) }).Stop()
	return ConnectionsUntil(ctx, dial, workers, stop)
}

// ConnectionsUntil is Connections until stop is closed.
func ConnectionsUntil(ctx context.Context, dial Dial, workers int, stop <-chan struct{}) (ConnectResult, error) {
	if workers < 1 {
		return ConnectResult{}, fmt.Errorf("measuring the connection rate: %d workers, want at least one", workers)
	}
	var (
		wg     sync.WaitGroup
		failed failures
		parts  = make([][]time.Duration, workers)
		ends   = make([][]time.Duration, workers) // since began
		began  = time.Now()
	)
	for w := range workers {
		wg.Go(func() {
			for !closed(stop) && ctx.Err() == nil {
				start := time.Now()
				if err := once(ctx, dial); err != nil {
					failed.add(err)
					continue
				}
				end := time.Now()
				parts[w], ends[w] = append(parts[w], end.Sub(start)), append(ends[w], end.Sub(began))
			}
		})
	}
	wg.Wait()
	r := ConnectResult{Failed: failed.n, FirstErr: failed.first, Elapsed: time.Since(began), Latencies: newLatencies(parts...)}
	r.Gap = longestGap(newLatencies(ends...).sorted, r.Elapsed)
	r.Completed = r.Latencies.Count()
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("measuring the connection rate: %w", err)
	}
	if r.Completed == 0 {
		return r, fmt.Errorf("measuring the connection rate: none of %d connections succeeded, the first failed with: %w", r.Failed, r.FirstErr)
	}
	return r, nil
}

func closed(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// longestGap is the longest time from 0 to total without one of the moments,
// which are in order.
func longestGap(moments []time.Duration, total time.Duration) time.Duration {
	var gap, last time.Duration
	for _, m := range moments {
		gap, last = max(gap, m-last), m
	}
	return max(gap, total-last)
}

func once(ctx context.Context, dial Dial) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
		return err
	}
	if err := exchangeByte(c); err != nil {
		return err
	}
	var b [1]byte
	switch n, err := c.Read(b[:]); {
	case n > 0:
		return errors.New("data after the answer")
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("waiting for the end of the stream: %w", err)
	}
	return nil
}

// exchangeByte proves that a connection reaches the server and comes back.
func exchangeByte(c net.Conn) error {
	b := [1]byte{0xc8}
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if b[0] != 0xc8 {
		return fmt.Errorf("echoed byte is %#x, sent 0xc8", b[0])
	}
	return nil
}
