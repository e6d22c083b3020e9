// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Call does one piece of work for a worker, counted from 0, and says how many
// units it was worth.
type Call func(ctx context.Context, worker int) (units int, err error)

// Calls has every worker make one call after another for duration d. Calls
// under way at the end finish and count, and so does their time. One that
// fails ends the measurement.
func Calls(ctx context.Context, workers int, d time.Duration, call Call) (RequestResult, error) {
	ctx, cancel := context.WithTimeout(ctx, d+grace)
	defer cancel()
	var (
		wg     sync.WaitGroup
		failed failures
		units  = make([]int, workers)
		parts  = make([][]time.Duration, workers)
		began  = time.Now()
		until  = began.Add(d)
	)
	for w := range workers {
		wg.Go(func() {
			for start := time.Now(); start.Before(until); {
				n, err := call(ctx, w)
				if err != nil {
					failed.add(err)
					cancel()
					return
				}
				now := time.Now()
				units[w] += n
				parts[w] = append(parts[w], now.Sub(start))
				start = now
			}
		})
	}
	wg.Wait()
	r := RequestResult{Elapsed: time.Since(began), Latencies: newLatencies(parts...)}
	for _, n := range units {
		r.Requests += n
	}
	if failed.n > 0 {
		return r, fmt.Errorf("measuring calls in a closed loop: %d failed, the first with: %w", failed.n, failed.first)
	}
	return r, nil
}

// maxUnderWay is how many calls of CallsAt may be unanswered: with more, the
// rate is more than the server can do.
const maxUnderWay = 4096

// CallsAt makes calls at a fixed rate per second for duration d, whether or not
// earlier ones were answered; workers is what their numbers are the remainder
// of. Latency counts from the moment a call was due.
func CallsAt(ctx context.Context, workers int, rate float64, d time.Duration, call Call) (RequestResult, error) {
	if rate <= 0 {
		return RequestResult{}, fmt.Errorf("measuring calls at a fixed rate: %g per second, want more than none", rate)
	}
	ctx, cancel := context.WithTimeout(ctx, d+grace)
	defer cancel()
	var (
		wg     sync.WaitGroup
		failed failures
		total  = int(d.Seconds() * rate)
		took   = make([]time.Duration, total)
		late   = make([]time.Duration, 0, total)
		slots  = make(chan struct{}, maxUnderWay)
		began  = time.Now()
	)
	wg.Go(func() {
		runtime.LockOSThread() // as pace does
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		for i := 0; i < total && ctx.Err() == nil; i++ {
			at := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
			sleepUntil(at)
			late = append(late, time.Since(at))
			select {
			case slots <- struct{}{}:
			default:
				failed.add(fmt.Errorf("%d calls are unanswered: the rate is too high", maxUnderWay))
				cancel()
				return
			}
			wg.Go(func() {
				if _, err := call(ctx, i%workers); err != nil {
					failed.add(err)
					cancel()
				}
				took[i] = time.Since(at)
				<-slots
			})
		}
	})
	wg.Wait()
	if failed.n > 0 {
		return RequestResult{}, fmt.Errorf("measuring calls at %.0f per second: %d failed, the first with: %w", rate, failed.n, failed.first)
	}
	return RequestResult{Requests: total, Elapsed: time.Since(began), Latencies: newLatencies(took), Pacing: newLatencies(late)}, ctx.Err()
}
