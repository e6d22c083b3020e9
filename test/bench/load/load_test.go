// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// serve runs a server on loopback for the duration of the test.
func serve(t testing.TB, h Handler) Dial {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln.Addr().String())
	}
}

func TestQuantileIsTheNearestRank(t *testing.T) {
	of := func(ms ...int) Latencies {
		var d []time.Duration
		for _, m := range ms {
			d = append(d, time.Duration(m)*time.Millisecond)
		}
		return newLatencies(d)
	}
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i // unsorted on purpose
	}
	for _, tc := range []struct {
		name string
		l    Latencies
		q    float64
		want time.Duration
	}{
		{"nothing measured", of(), 0.99, 0},
		{"one value is every quantile", of(7), 0.5, 7 * time.Millisecond},
		{"median of two is the lower", of(1, 2), 0.5, time.Millisecond},
		{"p99 of a hundred", of(hundred...), 0.99, 99 * time.Millisecond},
		{"p50 of a hundred", of(hundred...), 0.5, 50 * time.Millisecond},
		{"maximum", of(hundred...), 1, 100 * time.Millisecond},
		{"minimum", of(hundred...), 0, time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.l.Quantile(tc.q); got != tc.want {
				t.Errorf("Quantile(%v) = %v, want %v", tc.q, got, tc.want)
			}
		})
	}
}

func TestBulkCountsWhatTheReceiversConfirmed(t *testing.T) {
	for _, flows := range []int{1, 8} {
		r, err := Bulk(t.Context(), serve(t, Sink), flows, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if r.Bytes == 0 || r.Elapsed < 200*time.Millisecond || r.BitsPerSecond() <= 0 {
			t.Errorf("%d flows: %+v", flows, r)
		}
	}
}

func TestBulkFailsWhenBytesAreLost(t *testing.T) {
	short := func(c net.Conn) error {
		if _, err := io.Copy(io.Discard, c); err != nil {
			return err
		}
		_, err := c.Write(make([]byte, 8)) // claims to have received nothing
		return err
	}
	_, err := Bulk(t.Context(), serve(t, short), 2, 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "the receiver got 0 of") {
		t.Errorf("Bulk = %v", err)
	}
}

func TestLongestGapHasBothEnds(t *testing.T) {
	for _, tc := range []struct {
		moments []time.Duration
		want    time.Duration
	}{{nil, 10}, {[]time.Duration{7}, 7}, {[]time.Duration{1, 2}, 8}, {[]time.Duration{2, 7, 9}, 5}} {
		if got := longestGap(tc.moments, 10); got != tc.want {
			t.Errorf("longestGap(%v, 10) = %v, want %v", tc.moments, got, tc.want)
		}
	}
}

func TestConnectionsCountsOnlyOrderlyOnes(t *testing.T) {
	r, err := Connections(t.Context(), serve(t, Once), 4, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed != 0 || r.Completed == 0 || r.Completed != r.Latencies.Count() || r.PerSecond() <= 0 {
		t.Errorf("%+v", r)
	}

	for name, h := range map[string]Handler{
		"closed without an answer": func(net.Conn) error { return nil },
		"more than one byte": func(c net.Conn) error {
			_, err := c.Write([]byte{0xc8, 0xc8})
			_, _ = io.Copy(io.Discard, c)
			return err
		},
		"another byte": func(c net.Conn) error { _, err := c.Write([]byte{1}); return err },
		"reset instead of an end": func(c net.Conn) error {
			if err := Once(c); err != nil {
				return err
			}
			return c.(*net.TCPConn).SetLinger(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Connections(t.Context(), serve(t, h), 1, 30*time.Millisecond)
			if err == nil || r.Completed != 0 || r.Failed == 0 || r.FirstErr == nil {
				t.Errorf("Connections = %+v, %v", r, err)
			}
		})
	}
}

func TestClosedLoopMeasuresEachRequest(t *testing.T) {
	r, err := ClosedLoop(t.Context(), serve(t, Respond), 4, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests == 0 || r.Latencies.Count() != r.Requests || r.Latencies.Quantile(0.99) < r.Latencies.Quantile(0.5) {
		t.Errorf("%d requests, p50 %v, p99 %v", r.Requests, r.Latencies.Quantile(0.5), r.Latencies.Quantile(0.99))
	}
	t.Logf("%.0f/s, p50 %v, p99 %v", r.PerSecond(), r.Latencies.Quantile(0.5), r.Latencies.Quantile(0.99))
}

func TestOpenLoopSendsEveryDueRequest(t *testing.T) {
	r, err := OpenLoop(t.Context(), serve(t, Respond), 8, Rate, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != Rate/2 || r.Pacing.Count() != r.Requests {
		t.Errorf("%d requests answered, %d paced, want %d", r.Requests, r.Pacing.Count(), Rate/2)
	}
	t.Logf("p50 %v, p99 %v; pacing p99 %v", r.Latencies.Quantile(0.5), r.Latencies.Quantile(0.99), r.Pacing.Quantile(0.99))
}

// A server that stalls once for 200 ms delays every request of that time. A
// generator that waits for answers before it goes on would see one slow
// request; this one must see the tenth of all requests that were due then.
func TestOpenLoopDoesNotOmitRequestsDuringAStall(t *testing.T) {
	const stall = 200 * time.Millisecond
	stalling := func(c net.Conn) error {
		buf := make([]byte, MessageSize)
		for i := 0; ; i++ {
			if _, err := io.ReadFull(c, buf); err != nil {
				return nil
			}
			if i == 20 {
				time.Sleep(stall)
			}
			if _, err := c.Write(buf); err != nil {
				return err
			}
		}
	}
	r, err := OpenLoop(t.Context(), serve(t, stalling), 1, 200, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	slow := 0
	for _, l := range r.Latencies.sorted {
		if l > stall/4 {
			slow++
		}
	}
	// 200 per second during 3/4 of 200 ms are 30.
	if slow < 20 {
		t.Errorf("%d slow requests, want about 30", slow)
	}
	if p := r.Latencies.Quantile(0.99); p < stall/2 {
		t.Errorf("p99 %v hides a stall of %v", p, stall)
	}
}

func TestMeasurementsEndWithTheirContext(t *testing.T) {
	for name, run := range map[string]func(context.Context) error{
		"bulk": func(ctx context.Context) error {
			_, err := Bulk(ctx, serve(t, Sink), 2, time.Hour)
			return err
		},
		"connections": func(ctx context.Context) error {
			_, err := Connections(ctx, serve(t, Once), 2, time.Hour)
			return err
		},
		"closed loop": func(ctx context.Context) error {
			_, err := ClosedLoop(ctx, serve(t, Respond), 2, time.Hour)
			return err
		},
		"open loop": func(ctx context.Context) error {
			_, err := OpenLoop(ctx, serve(t, Respond), 2, 1000, time.Minute)
			return err
		},
		"idle": func(ctx context.Context) error {
			_, err := Idle(ctx, serve(t, Echo), 2, time.Hour, NewProc(), os.Getpid())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ended with %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestNoConnectionMeansNoMeasurement(t *testing.T) {
	refused := errors.New("refused")
	dial := func(context.Context) (net.Conn, error) { return nil, refused }
	ctx := t.Context()
	for name, run := range map[string]func() error{
		"bulk":        func() error { _, err := Bulk(ctx, dial, 1, time.Second); return err },
		"connections": func() error { _, err := Connections(ctx, dial, 1, time.Millisecond); return err },
		"closed loop": func() error { _, err := ClosedLoop(ctx, dial, 1, time.Second); return err },
		"open loop":   func() error { _, err := OpenLoop(ctx, dial, 1, 10, time.Second); return err },
		"idle":        func() error { _, err := Idle(ctx, dial, 1, 0, NewProc(), os.Getpid()); return err },
	} {
		if err := run(); !errors.Is(err, refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Bulk(ctx, dial, 0, time.Second); err == nil {
		t.Error("no flows were accepted")
	}
	if _, err := OpenLoop(ctx, dial, 1, 0, time.Second); err == nil {
		t.Error("a rate of 0 was accepted")
	}
}
