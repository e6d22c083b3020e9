// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Rate is the request rate per second at which tail latencies are compared.
const Rate = 2000

// OpenLoop sends requests of MessageSize to a Respond server at a fixed rate
// per second for duration d, in turn over the given connections, whether or
// not earlier answers have come. Latency counts from the moment a request was
// due: if the server (or this generator) stalls, every request of that time
// shows it.
func OpenLoop(ctx context.Context, dial Dial, connections, rate int, d time.Duration) (RequestResult, error) {
	fail := func(err error) (RequestResult, error) {
		return RequestResult{}, fmt.Errorf("measuring requests at a fixed rate: %w", err)
	}
	if rate < 1 {
		return fail(fmt.Errorf("%d requests per second, want at least one", rate))
	}
	conns, err := dialAll(ctx, dial, connections, exchangeMessage)
	if err != nil {
		return fail(err)
	}
	defer closeAll(conns)
	defer abortOn(ctx, conns)()

	total := int(d.Seconds() * float64(rate))
	var (
		failed failures
		wg     sync.WaitGroup
		parts  = make([][]time.Duration, len(conns))
		due    = make([]chan time.Time, len(conns))
	)
	for i, c := range conns {
		// Room for all of a connection's requests: the sender never waits for
		// a reader.
		due[i] = make(chan time.Time, total/len(conns)+1)
		wg.Go(func() { parts[i] = collect(c, due[i], &failed) })
	}
	began := time.Now()
	stuck := time.AfterFunc(d+grace, func() { closeAll(conns) })
	defer stuck.Stop()
	pacing := pace(ctx, conns, due, began, total, rate, &failed)
	for _, ch := range due {
		close(ch)
	}
	wg.Wait()
	elapsed := time.Since(began)
	if failed.n > 0 {
		return fail(fmt.Errorf("%d connections failed, the first with: %w", failed.n, preferCause(ctx, failed.first)))
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	l := newLatencies(parts...)
	return RequestResult{Requests: l.Count(), Elapsed: elapsed, Latencies: l, Pacing: newLatencies(pacing)}, nil
}

// pace sends request i at began + i/rate and returns how late each one was. It
// sleeps in the kernel on a thread of its own: Go's timers round up to
// a millisecond when the process is otherwise idle, ten times the difference
// that is to be measured.
func pace(ctx context.Context, conns []net.Conn, due []chan time.Time, began time.Time, total, rate int, failed *failures) []time.Duration {
	late := make([]time.Duration, 0, total)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread ends with the goroutine and takes its
		// timer slack along.
		runtime.LockOSThread()
		// 1 ns instead of 50 µs. If it is refused, Pacing shows it.
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		request := make([]byte, MessageSize)
		for i := 0; i < total && ctx.Err() == nil; i++ {
			at := began.Add(time.Duration(float64(i) / float64(rate) * float64(time.Second)))
			sleepUntil(at)
			late = append(late, time.Since(at))
			k := i % len(conns)
			due[k] <- at
			if _, err := conns[k].Write(request); err != nil {
				failed.add(err)
				return
			}
		}
	}()
	<-done
	return late
}

func sleepUntil(t time.Time) {
	for {
		wait := time.Until(t)
		if wait <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(wait))
		// Interrupted by a signal, it goes round again.
		_ = unix.Nanosleep(&ts, nil)
	}
}

// collect reads one answer for every due time, in order.
func collect(c net.Conn, due <-chan time.Time, failed *failures) []time.Duration {
	var out []time.Duration
	buf := make([]byte, MessageSize)
	for at := range due {
		if _, err := io.ReadFull(c, buf); err != nil {
			failed.add(err)
			for range due { // the sender must not block
			}
			return out
		}
		out = append(out, time.Since(at))
	}
	return out
}
