// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// bulkWrite is how much one write hands to the kernel; iperf3 uses the same.
const bulkWrite = 128 << 10

// BulkResult is what Bulk measured.
type BulkResult struct {
	Bytes   uint64        // confirmed by the receivers
	Elapsed time.Duration // from the first byte sent to the last confirmation
}

// BitsPerSecond is the throughput of the payload.
func (r BulkResult) BitsPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Elapsed.Seconds()
}

// Bulk sends for duration d over the given number of connections to a Sink.
// The connections are opened before the clock starts. Any failure fails the
// whole measurement, as does a receiver that got less than was sent.
func Bulk(ctx context.Context, dial Dial, flows int, d time.Duration) (BulkResult, error) {
	conns, err := dialAll(ctx, dial, flows, nil)
	if err != nil {
		return BulkResult{}, fmt.Errorf("measuring throughput: %w", err)
	}
	defer closeAll(conns)
	defer abortOn(ctx, conns)()

	var (
		wg     sync.WaitGroup
		failed failures
		mu     sync.Mutex
		total  uint64
		began  = time.Now()
	)
	for _, c := range conns {
		wg.Go(func() {
			n, err := push(c, began.Add(d))
			if err != nil {
				failed.add(err)
				return
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	if failed.n > 0 {
		return BulkResult{}, fmt.Errorf("measuring throughput: %d of %d flows failed, the first with: %w",
			failed.n, flows, preferCause(ctx, failed.first))
	}
	return BulkResult{Bytes: total, Elapsed: elapsed}, nil
}

// push writes until the deadline, ends its half of the stream and returns what
// the receiver says it got.
func push(c net.Conn, deadline time.Time) (uint64, error) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return 0, fmt.Errorf("a %T cannot end its half of the stream", c)
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	buf := make([]byte, bulkWrite)
	var sent uint64
	for time.Now().Before(deadline) {
		n, err := c.Write(buf)
		sent += uint64(n)
		if isTimeout(err) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
		return 0, err
	}
	if err := half.CloseWrite(); err != nil {
		return 0, err
	}
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return 0, fmt.Errorf("waiting for the receiver's count: %w", err)
	}
	got := binary.BigEndian.Uint64(answer[:])
	if got != sent {
		return 0, fmt.Errorf("the receiver got %d of %d bytes", got, sent)
	}
	return got, nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
