// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var poolKey = Key{Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.2.0.2"), Owner: "uid"}

// poolRig is a pool whose dials reach a server in the same process.
type poolRig struct {
	*Pool
	srv   *Server
	dials atomic.Int64
	gate  chan struct{} // when set, each dial takes one token first
	fail  atomic.Pointer[error]
	life  time.Duration
	clock atomic.Int64 // added to the time, in nanoseconds
}

func (r *poolRig) now() time.Time { return time.Now().Add(time.Duration(r.clock.Load())) }

func newPoolRig(t *testing.T, cfg PoolConfig) *poolRig {
	r := &poolRig{life: time.Hour}
	bufs := new(Buffers)
	ln := listenTCP(t)
	r.srv = NewServer(ServerConfig{Buffers: bufs, Accept: func(context.Context, *Tunnel, Header) (App, func(Result), Reason) {
		return nil, nil, ReasonConnectionRefused
	}})
	cfg.Now = r.now
	cfg.Dial = func(ctx context.Context, _ Key) (*Tunnel, Meta, error) {
		r.dials.Add(1)
		if r.gate != nil {
			select {
			case <-r.gate:
			case <-ctx.Done():
				return nil, Meta{}, context.Cause(ctx)
			}
		}
		if err := r.fail.Load(); err != nil {
			return nil, Meta{}, *err
		}
		c, err := tryDial(ln.Addr().String())
		if err != nil {
			return nil, Meta{}, err
		}
		tun, err := Dialed(ctx, c, nil, bufs)
		return tun, Meta{NotAfter: r.now().Add(r.life)}, err
	}
	r.Pool = NewPool(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.srv.Serve(ctx, ln) })
	wg.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func (r *poolRig) get(t *testing.T) *Lease {
	t.Helper()
	l, err := r.Get(t.Context(), poolKey)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestReturnedTunnelIsUsedAgainLastInFirstOut(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	a, b := r.get(t), r.get(t)
	r.Put(a)
	r.Put(b)
	if l := r.get(t); l.Tunnel != b.Tunnel || !l.Reused {
		t.Error("not the last one returned")
	}
}

func TestTakingTheLastIdleTunnelDialsASpare(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	r.Put(r.get(t))
	l := r.get(t)
	eventually(t, "a spare", func() bool { return r.Stats().Idle == 1 })
	r.Put(l)
	for range 20 {
		r.Put(r.get(t))
	}
	if n := r.dials.Load(); n != 2 {
		t.Errorf("%d dials", n)
	}
}

func TestWaiterTakesWhateverComesFirst(t *testing.T) {
	r := newPoolRig(t, PoolConfig{MaxDials: 1})
	held := r.get(t)
	r.gate = make(chan struct{}) // from now on dials hang
	got := make(chan *Lease, 1)
	go func() {
		l, _ := r.Get(t.Context(), poolKey)
		got <- l
	}()
	eventually(t, "a dial", func() bool { return r.dials.Load() == 2 })
	r.Put(held)
	if l := await(t, got); l == nil || l.Tunnel != held.Tunnel {
		t.Error("the returned tunnel did not serve the waiter")
	}
	close(r.gate)
	eventually(t, "the dialled one kept as spare", func() bool { return r.Stats().Idle == 1 })
}

func TestDialsAreLimitedPerKey(t *testing.T) {
	r := newPoolRig(t, PoolConfig{MaxDials: 3})
	r.gate = make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if l, err := r.Get(t.Context(), poolKey); err == nil {
				time.Sleep(time.Millisecond)
				r.Put(l)
			} else {
				t.Error(err)
			}
		})
	}
	eventually(t, "three dials", func() bool { return r.dials.Load() == 3 })
	time.Sleep(20 * time.Millisecond)
	if n := r.dials.Load(); n != 3 {
		t.Errorf("%d dials at once", n)
	}
	close(r.gate)
	wg.Wait()
}

func TestDialErrorReachesEveryWaiter(t *testing.T) {
	r := newPoolRig(t, PoolConfig{MaxDials: 2})
	boom := errors.New("boom")
	r.fail.Store(&boom)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := r.Get(t.Context(), poolKey); !errors.Is(err, boom) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}

func TestDialThatBeganBeforeFailsNobodyWhoCameLater(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	r.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := r.Get(ctx, poolKey); first <- err }()
	eventually(t, "a dial", func() bool { return r.dials.Load() == 1 })
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	later := make(chan error, 1)
	go func() {
		l, err := r.Get(t.Context(), poolKey)
		if err == nil {
			r.Put(l)
		}
		later <- err
	}()
	eventually(t, "a waiter", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.key(poolKey).waiters) == 1 })
	err := errors.New("cut off")
	r.fail.Store(&err)
	r.gate <- struct{}{}
	eventually(t, "another dial", func() bool { return r.dials.Load() == 2 })
	r.fail.Store(nil)
	r.gate <- struct{}{}
	if err := <-later; err != nil {
		t.Errorf("got the error of a dial that began before: %v", err)
	}
}

func TestGivingUpWaitingLosesNoTunnel(t *testing.T) {
	r := newPoolRig(t, PoolConfig{MaxDials: 1})
	r.gate = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, poolKey); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	close(r.gate)
	eventually(t, "the dialled tunnel kept", func() bool { s := r.Stats(); return s.Idle == 1 && s.Busy == 0 })
}

func TestTunnelsAreNotUsedPastTheirCertificate(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	l := r.get(t)
	r.Put(l)
	r.clock.Store(int64(2 * time.Hour))
	if again := r.get(t); again.Tunnel == l.Tunnel {
		t.Error("an expired tunnel was lent")
	}
	held := r.get(t)
	r.clock.Store(int64(4 * time.Hour))
	r.Put(held)
	r.Pool.sweep()
	if s := r.Stats(); s.Idle != 0 && s.Discarded == 0 {
		t.Errorf("%+v", s)
	}
}

func TestDeadIdleTunnelIsReplaced(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	l := r.get(t)
	r.Put(l)
	// The acceptor's end may still be about to register itself.
	eventually(t, "the death to arrive", func() bool {
		r.srv.CloseWhere(func(*Tunnel) *Ending { return &Ending{Reason: ReasonShutdown} })
		return !l.Tunnel.Idle()
	})
	if again := r.get(t); again.Tunnel == l.Tunnel {
		t.Error("a dead tunnel was lent")
	}
}

// What CloseWhere asks about may change while a handshake is under way, and
// CloseWhere does not see that tunnel.
func TestTunnelIsJudgedWhenItsHandshakeIsOver(t *testing.T) {
	t.Run("by the opener", func(t *testing.T) {
		var judged atomic.Int64
		r := newPoolRig(t, PoolConfig{Judge: func(k Key, m Meta, _ *Tunnel) *Ending {
			if k != poolKey || m.NotAfter.IsZero() {
				t.Errorf("asked about %v, %v", k, m)
			}
			if judged.Add(1) > 1 {
				return nil
			}
			return &Ending{Reason: ReasonPolicyChanged}
		}})
		if l := r.get(t); !l.Tunnel.Idle() {
			t.Error("a tunnel that had to end was lent")
		}
		if dials, s := r.dials.Load(), r.Stats(); dials != 2 || s.Discarded != 1 {
			t.Errorf("%d dials, %+v, want the first to be discarded", dials, s)
		}
	})
	t.Run("by the acceptor", func(t *testing.T) {
		bufs, ln := new(Buffers), listenTCP(t)
		srv := NewServer(ServerConfig{
			Buffers: bufs, Judge: func(*Tunnel) *Ending { return &Ending{Reason: ReasonPolicyChanged} },
			Accept: func(context.Context, *Tunnel, Header) (App, func(Result), Reason) {
				t.Error("a tunnel that had to end carried a stream")
				return nil, nil, ReasonInternal
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() { _ = srv.Serve(ctx, ln) })
		defer serving.Wait()
		defer cancel()
		if c, err := tryDial(ln.Addr().String()); err == nil { // the end may be faster
			if tun, err := Dialed(ctx, c, nil, bufs); err == nil {
				eventually(t, "the end to arrive", func() bool { return !tun.Idle() })
			}
		}
		eventually(t, "a handshake", func() bool { return srv.Stats().Handshakes == 1 })
		if n := srv.Stats().Tunnels; n != 0 {
			t.Errorf("%d tunnels are open", n)
		}
	})
}

func TestCloseWhereReachesIdleAndBusyTunnels(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	idle, busy := r.get(t), r.get(t)
	r.Put(idle)
	if n := r.CloseWhere(func(k Key, _ Meta, _ *Tunnel) *Ending {
		if k != poolKey {
			return nil
		}
		return &Ending{Reason: ReasonPolicyChanged}
	}); n < 2 {
		t.Errorf("closed %d", n)
	}
	r.Put(busy)
	if idle.Tunnel.Idle() || busy.Tunnel.Idle() {
		t.Error("still usable")
	}
	if l := r.get(t); l.Tunnel == busy.Tunnel || l.Tunnel == idle.Tunnel {
		t.Error("a closed tunnel was lent")
	}
}

func TestIdleTunnelsAgeOut(t *testing.T) {
	r := newPoolRig(t, PoolConfig{IdleTimeout: time.Minute})
	r.Put(r.get(t))
	r.clock.Store(int64(2 * time.Minute))
	r.sweep()
	if s := r.Stats(); s.Idle != 0 {
		t.Errorf("%+v", s)
	}
	r.clock.Store(int64(5 * time.Minute))
	r.sweep()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) != 0 {
		t.Error("keys without tunnels are kept")
	}
}

func TestServerCutsSilentHandshakes(t *testing.T) {
	_, cfg := testTLS(t)
	ln := listenTCP(t)
	var refused atomic.Int64
	srv := NewServer(ServerConfig{
		Buffers: new(Buffers), Session: func() (*tls.Config, any) { return cfg, nil },
		HandshakeTimeout: 150 * time.Millisecond, MaxHandshakes: 2, Refused: func(net.Addr, error) { refused.Add(1) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			c, err := tryDial(ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.Copy(io.Discard, c) // says nothing
		})
	}
	wg.Wait()
	cancel()
	must(t, await(t, done)) // every refusal was reported by then
	s := srv.Stats()
	if cut := refused.Load(); cut == 0 || cut+int64(s.Crowded) != 6 || s.HandshakeErrors != uint64(cut) { //nolint:gosec // small
		t.Errorf("of six silent connections %d were cut: %+v", cut, s)
	}
}

func TestServerClosesIdleTunnels(t *testing.T) {
	ln := listenTCP(t)
	srv := NewServer(ServerConfig{Buffers: new(Buffers), IdleTimeout: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	tun, err := Dialed(t.Context(), dialTCP(t, ln.Addr().String()), nil, new(Buffers))
	must(t, err)
	eventually(t, "the tunnel to be closed", func() bool { return !tun.Idle() })
	cancel()
	must(t, await(t, done))
}
