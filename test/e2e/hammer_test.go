// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/cluster"
)

// hammer opens connections one after the other, without a pause.
type hammer struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration // to the server's first byte
	failed []error
}

// hammerWorkers is how many connections each hammer makes at once.
const hammerWorkers = 3

func startHammer(t *testing.T, from *cluster.Pod, to netip.AddrPort) *hammer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h := &hammer{cancel: cancel}
	for range hammerWorkers {
		h.done.Go(func() {
			for ctx.Err() == nil {
				h.strike(ctx, from, to)
			}
		})
	}
	t.Cleanup(h.stop)
	return h
}

func (h *hammer) strike(ctx context.Context, from *cluster.Pod, to netip.AddrPort) {
	began := time.Now()
	conn, err := greeted(ctx, from, to)
	took := time.Since(began)
	if err == nil {
		err = roundTrip(conn)
		conn.Close()
	}
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took = append(h.took, took)
	if err != nil {
		h.failed = append(h.failed, fmt.Errorf("at %s, after %s: %w", began.Format("15:04:05.000"), took, err))
	}
}

func (h *hammer) stop() {
	h.cancel()
	h.done.Wait()
}

func (h *hammer) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.took)
}

// mustGoOn waits until so many further connections were made.
func (h *hammer) mustGoOn(t *testing.T, more int) {
	t.Helper()
	want := h.count() + more
	for end := time.Now().Add(time.Minute); h.count() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d of %d connections in a minute", h.count(), want)
		}
	}
}

// mustNotHaveFailed stops the hammer.
func (h *hammer) mustNotHaveFailed(t *testing.T, what string) {
	t.Helper()
	h.stop()
	slices.Sort(h.took)
	if len(h.failed) > 0 || len(h.took) == 0 {
		t.Errorf("%s: %d of %d new connections failed: %v", what, len(h.failed), len(h.took), errors.Join(h.failed[:min(5, len(h.failed))]...))
		return
	}
	t.Logf("%s: %d new connections, none failed; half within %s, all within %s",
		what, len(h.took), h.took[len(h.took)/2].Round(10*time.Microsecond), h.took[len(h.took)-1].Round(10*time.Microsecond))
}

// standing is a connection that is used all the time; ended says why it no
// longer could be.
func standing(t *testing.T, from *cluster.Pod, to netip.AddrPort) (conn net.Conn, ended <-chan error) {
	t.Helper()
	conn, err := greeted(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	end := make(chan error, 1)
	go func() {
		for {
			if err := roundTrip(conn); err != nil {
				end <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return conn, end
}
