// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy/policytest"
)

const hostileAddr = "127.10.0.66"

// besieged is web and a hostile pod of the same workload on node a, db on b.
func besieged(t *testing.T) (w *world, a, b *node) {
	w = newWorld(t)
	a = w.node("127.0.0.1", Limits{ConnectionsPerPod: 40})
	b = w.node("127.0.0.2", Limits{Handshakes: 16})
	a.pod(policytest.Web, webAddr)
	a.pod(policytest.Web, hostileAddr)
	b.pod(policytest.DB, dbAddr)
	return w, a, b
}

// keep holds as many connections as there is room for.
func keep(hold chan net.Conn, c net.Conn) {
	select {
	case hold <- c:
	default:
		(<-hold).Close()
		c.Close()
	}
}

// attack runs fn again and again until the test calls stop.
func attack(t *testing.T, workers int, fn func()) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range workers {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					fn()
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// served makes connections from web, one after the other, and returns how long
// each took. All must succeed.
func served(t *testing.T, a *node, n int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		c := a.dial(webAddr, dbApp)
		talk(t, c)
		took[i] = time.Since(began)
		must(t, c.Close())
	}
	slices.Sort(took)
	return took
}

// The ratios are reported and not asserted: they are the machine's.
func TestOthersAreServedWhateverOneDoes(t *testing.T) {
	for name, tt := range map[string]struct {
		begin func(t *testing.T, w *world, a, b *node) (stop func())
		limit string // on which node's limit it runs into
		far   bool
	}{
		"a pod connects as fast as it can": {limit: "outgoing", begin: func(t *testing.T, _ *world, a, _ *node) func() {
			hold := make(chan net.Conn, 60)
			return attack(t, 2, func() {
				c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(hostileAddr)}, a.listeners.Pods[0].Addr().(*net.TCPAddr))
				if err != nil {
					return
				}
				keep(hold, c)
			})
		}},
		"a pod reads nothing": {begin: func(t *testing.T, _ *world, a, _ *node) func() {
			var all []net.Conn
			for range 4 {
				c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(hostileAddr)}, a.listeners.Pods[0].Addr().(*net.TCPAddr))
				must(t, err)
				all = append(all, c)
				go func() { _, _ = io.Copy(c, zeros{}) }() // the echo comes back, nobody reads it
			}
			return func() {
				for _, c := range all {
					c.Close()
				}
			}
		}},
		"a stranger leaves handshakes half done": {limit: "handshakes", far: true, begin: func(t *testing.T, _ *world, _, b *node) func() {
			to := b.listeners.Tunnels.Addr().String()
			hold := make(chan net.Conn, 200)
			return attack(t, 2, func() {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.66.0.1")}, Timeout: time.Second}
				c, err := d.DialContext(t.Context(), "tcp", to)
				if err != nil {
					if !errors.Is(err, syscall.ECONNRESET) {
						time.Sleep(time.Millisecond)
					}
					return
				}
				keep(hold, c)
			})
		}},
		"many strangers leave handshakes half done": {limit: "handshakes", far: true, begin: func(t *testing.T, _ *world, _, b *node) func() {
			to := b.listeners.Tunnels.Addr().String()
			hold := make(chan net.Conn, 1000)
			var n atomic.Uint32
			return attack(t, 2, func() {
				i := n.Add(1)
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 66, byte(i/200), byte(1+i%200))}, Timeout: time.Second}
				c, err := d.DialContext(t.Context(), "tcp", to)
				if err != nil {
					return
				}
				keep(hold, c)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := besieged(t)
			echo(t, dbApp)
			calm := served(t, a, 60)
			stop := tt.begin(t, w, a, b)
			defer stop()
			reached := func() uint64 {
				n := a
				if tt.far {
					n = b
				}
				return n.proxy.Stats().Limits[tt.limit]
			}
			for end := time.Now().Add(20 * time.Second); tt.limit != "" && reached() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the limit was never reached: %+v", a.proxy.Stats())
				}
			}
			busy := served(t, a, 60)
			s := a.proxy.Stats()
			if s.Outgoing > 42 { // the hostile pod's 40, and web's last two
				t.Errorf("%d connections: the limit does not hold", s.Outgoing)
			}
			t.Logf("a connection and a round trip: p50 %s, under attack %s (x%.1f); p99 %s, under attack %s (x%.1f)",
				calm[30], busy[30], float64(busy[30])/float64(calm[30]), calm[59], busy[59], float64(busy[59])/float64(calm[59]))
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
