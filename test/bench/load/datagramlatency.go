// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// EchoResult is what DatagramLatency measured.
type EchoResult struct {
	Sent      int
	Lost      int // not back within a second after the last was sent
	Latencies Latencies
	Pacing    Latencies // as in RequestResult
}

// DatagramLatency sends datagrams of size bytes at a fixed rate per second for
// duration d on one flow to ServeDatagrams, which sends them back. Latency
// counts from the moment a datagram was due.
func DatagramLatency(ctx context.Context, dial Dial, size, rate int, d time.Duration) (EchoResult, error) {
	fail := func(err error) (EchoResult, error) {
		return EchoResult{}, fmt.Errorf("measuring datagrams at a fixed rate: %w", err)
	}
	total := int(d.Seconds() * float64(rate))
	if size < datagramHeader || size > maxDatagram || total < 1 {
		return fail(fmt.Errorf("%d of %d bytes, want at least 1 of %d to %d", total, size, datagramHeader, maxDatagram))
	}
	conns, err := dialAll(ctx, dial, 1, func(c net.Conn) error { _, err := report(c); return err })
	if err != nil {
		return fail(err)
	}
	defer closeAll(conns)
	defer abortOn(ctx, conns)()
	c, began := conns[0], time.Now()
	if err := c.SetReadDeadline(began.Add(d + time.Second)); err != nil {
		return fail(err)
	}
	due := func(i int) time.Time {
		return began.Add(time.Duration(float64(i) / float64(rate) * float64(time.Second)))
	}
	var back []time.Duration
	var readErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		back, readErr = echoes(c, total, due)
	}()
	late, err := paceDatagrams(ctx, c, size, total, due)
	if err != nil {
		c.Close() // ends the reader
	}
	<-done
	if err = errors.Join(err, readErr, ctx.Err()); err != nil {
		return fail(err)
	}
	return EchoResult{Sent: total, Lost: total - len(back), Latencies: newLatencies(back), Pacing: newLatencies(late)}, nil
}

// paceDatagrams sends number i when it is due, from a thread that sleeps in
// the kernel as pace does.
func paceDatagrams(ctx context.Context, c net.Conn, size, total int, due func(int) time.Time) (late []time.Duration, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with its timer slack
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		buf := make([]byte, size)
		buf[0] = datagramEcho
		for i := 0; i < total && ctx.Err() == nil; i++ {
			sleepUntil(due(i))
			late = append(late, time.Since(due(i)))
			binary.BigEndian.PutUint64(buf[1:], uint64(i))
			if _, err = c.Write(buf); err != nil {
				return
			}
		}
	}()
	<-done
	return late, err
}

// echoes reads until all are back or the read deadline. One that comes twice
// counts once.
func echoes(c net.Conn, total int, due func(int) time.Time) ([]time.Duration, error) {
	var took []time.Duration
	seen, buf := make([]bool, total), make([]byte, maxDatagram)
	for len(took) < total {
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return took, nil
		}
		if err != nil {
			return nil, err
		}
		if n < datagramHeader || buf[0] != datagramEcho {
			continue // a late answer to report
		}
		i := binary.BigEndian.Uint64(buf[1:])
		if i >= uint64(total) {
			return nil, fmt.Errorf("number %d of %d came back", i, total)
		}
		if !seen[i] {
			seen[i] = true
			took = append(took, time.Since(due(int(i))))
		}
	}
	return took, nil
}
