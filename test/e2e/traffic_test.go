// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/cluster"
)

const (
	// exchangeTimeout is how long one round trip may take before it counts as
	// failed; on an idle machine it takes a millisecond.
	exchangeTimeout = 10 * time.Second
	trafficEvery    = 50 * time.Millisecond
)

// traffic is what a pod says to another's echo server all the time: over one
// connection that stands, and over a new one each time.
type traffic struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	count int
	err   error
}

// startTraffic returns when the standing connection stands.
func startTraffic(t *testing.T, from *cluster.Pod, to netip.AddrPort) *traffic {
	t.Helper()
	standing, err := greeted(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{cancel: cancel}
	tr.repeat(ctx, "the standing connection", func() error { return roundTrip(standing) })
	tr.repeat(ctx, "a new connection", func() error {
		conn, err := greeted(ctx, from, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		return roundTrip(conn)
	})
	t.Cleanup(func() {
		cancel()
		tr.done.Wait()
		standing.Close()
	})
	return tr
}

func (tr *traffic) repeat(ctx context.Context, what string, exchange func() error) {
	tr.done.Go(func() {
		tick := time.NewTicker(trafficEvery)
		defer tick.Stop()
		for began := time.Now(); ; {
			err := exchange()
			if ctx.Err() != nil {
				return
			}
			tr.mu.Lock()
			tr.count++
			if err != nil {
				tr.err = errors.Join(tr.err, fmt.Errorf("%s, after %s: %w", what, time.Since(began).Round(time.Millisecond), err))
			}
			tr.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// mustFlow fails the test if any exchange has failed, and stops the traffic.
func (tr *traffic) mustFlow(t *testing.T) {
	t.Helper()
	tr.cancel()
	tr.done.Wait()
	if tr.err != nil || tr.count == 0 {
		t.Errorf("of %d exchanges between running pods: %v", tr.count, tr.err)
		return
	}
	t.Logf("%d exchanges between running pods, none failed", tr.count)
}

// greeted connects and reads the echo server's first line.
func greeted(ctx context.Context, from *cluster.Pod, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return nil, err
	}
	for one := make([]byte, 1); one[0] != '\n'; {
		if _, err := io.ReadFull(conn, one); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

func roundTrip(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}
