// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestCallsCountsUnitsAndFinishesWhatItBegan(t *testing.T) {
	var begun, ended atomic.Int64
	r, err := Calls(t.Context(), 4, 50*time.Millisecond, func(_ context.Context, worker int) (int, error) {
		begun.Add(1)
		if worker < 0 || worker > 3 {
			t.Errorf("worker %d", worker)
		}
		ended.Add(1)
		return 3, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if begun.Load() != ended.Load() || int64(r.Requests) != 3*ended.Load() || r.Latencies.Count() != int(ended.Load()) || r.PerSecond() <= 0 {
		t.Errorf("%d begun, %d ended: %d units, %d latencies", begun.Load(), ended.Load(), r.Requests, r.Latencies.Count())
	}
}

func TestCallsEndsWithTheFirstFailure(t *testing.T) {
	lost := errors.New("lost")
	_, err := Calls(t.Context(), 2, time.Hour, func(ctx context.Context, worker int) (int, error) {
		if worker == 1 {
			return 0, lost
		}
		<-ctx.Done() // a call that waits is told
		return 0, ctx.Err()
	})
	if !errors.Is(err, lost) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCallsAtCountsFromWhenACallWasDue(t *testing.T) {
	const total, rate = 100, 1000.0
	release := make(chan struct{})
	var calls atomic.Int64
	r, err := CallsAt(t.Context(), 2, rate, 100*time.Millisecond, func(context.Context, int) (int, error) {
		if calls.Add(1) == total {
			close(release)
		}
		<-release // all wait for the last: a stall shows in every call of its time
		return 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls.Load() != total || r.Requests != total || r.Latencies.Quantile(1) < 99*time.Millisecond || r.Latencies.Quantile(0.5) < 49*time.Millisecond {
		t.Errorf("%d calls, median %s, slowest %s", calls.Load(), r.Latencies.Quantile(0.5), r.Latencies.Quantile(1))
	}
}

func TestCallsAtFailsWhenTheRateIsTooHigh(t *testing.T) {
	_, err := CallsAt(t.Context(), 1, 1e6, 10*time.Millisecond, func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 1, nil
	})
	if err == nil || !strings.Contains(err.Error(), "too high") {
		t.Errorf("got %v", err)
	}
	if _, err := CallsAt(t.Context(), 1, 0, time.Second, nil); err == nil {
		t.Error("no rate was taken")
	}
}
