// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rig is a tunnel with a function that makes connections across it. near and
// far are the applications' ends.
type rig struct {
	opener, acceptor *Tunnel
	far              chan *net.TCPConn
	farResult        chan Result
	refuse           Reason
	served           chan error
}

func newRig(t *testing.T, useTLS bool) *rig { return newRigOn(t, useTLS, new(Buffers), "", "") }

func newRigOn(t *testing.T, useTLS bool, bufs *Buffers, from, to string) *rig {
	r := &rig{far: make(chan *net.TCPConn, 1), farResult: make(chan Result, 100), served: make(chan error, 1)}
	r.opener, r.acceptor = tunnelPairOn(t, useTLS, bufs)
	r.opener.Charge(from)
	r.acceptor.Charge(to)
	go func() {
		r.served <- r.acceptor.Serve(context.Background(), func(_ context.Context, h Header) (App, func(Result), Reason) {
			if h != testHeader {
				t.Errorf("OPEN says %+v", h)
			}
			if r.refuse != 0 {
				return nil, nil, r.refuse
			}
			relay, app := tcpPair(t)
			r.far <- app
			return relay, func(res Result) { r.farResult <- res }, 0
		})
	}()
	return r
}

// connect starts a stream; near's result arrives on the channel.
func (r *rig) connect(t *testing.T) (near *net.TCPConn, done chan Result) {
	relay, near := tcpPair(t)
	done = make(chan Result, 1)
	go func() { done <- r.opener.Relay(relay, testHeader) }()
	t.Cleanup(func() { near.Close() })
	deadline := time.Now().Add(20 * time.Second)
	near.SetDeadline(deadline)
	return near, done
}

func (r *rig) farEnd(t *testing.T) *net.TCPConn {
	t.Helper()
	c := await(t, r.far)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func await[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing happened for 20 s")
		panic("unreachable")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestBytesArriveUnchangedBothWays(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		up, down := randomBytes(5_000_003), randomBytes(3_000_017)
		var wg sync.WaitGroup
		send := func(c *net.TCPConn, p []byte) {
			defer c.CloseWrite()
			for len(p) > 0 {
				n := min(len(p), 1+mrand.IntN(300_000))
				if _, err := c.Write(p[:n]); err != nil {
					t.Error(err)
					return
				}
				p = p[n:]
			}
		}
		recv := func(c *net.TCPConn, want []byte) {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
			}
		}
		wg.Go(func() { send(near, up) })
		wg.Go(func() { recv(near, down) })
		far := r.farEnd(t)
		wg.Go(func() { send(far, down) })
		recv(far, up)
		wg.Wait()
		res, farRes := await(t, done), await(t, r.farResult)
		if res.Reason != 0 || res.Err != nil || res.Sent != int64(len(up)) || res.Received != int64(len(down)) {
			t.Errorf("near: %+v", res)
		}
		if farRes.Reason != 0 || farRes.Sent != int64(len(down)) || farRes.Received != int64(len(up)) {
			t.Errorf("far: %+v", farRes)
		}
		if !r.opener.Idle() {
			t.Error("the tunnel cannot be used again")
		}
	})
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		for name, nearFirst := range map[string]bool{"near first": true, "far first": false} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, useTLS)
				near, done := r.connect(t)
				far := r.farEnd(t) // nothing was sent yet: OPEN does not wait for data
				first, second := near, far
				if !nearFirst {
					first, second = far, near
				}
				must(t, first.CloseWrite())
				if n, err := second.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Fatalf("read %d, %v; want the end", n, err)
				}
				for range 3 { // still carried, after the end of the other direction
					msg := randomBytes(70_000)
					go second.Write(msg)
					got := make([]byte, len(msg))
					if _, err := io.ReadFull(first, got); err != nil || !bytes.Equal(got, msg) {
						t.Fatal(err)
					}
				}
				must(t, second.CloseWrite())
				if n, err := first.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Fatalf("read %d, %v; want the end", n, err)
				}
				if res := await(t, done); res.Reason != 0 || res.Err != nil {
					t.Errorf("%+v", res)
				}
				await(t, r.farResult)
				if !r.opener.Idle() {
					t.Error("the tunnel cannot be used again")
				}
			})
		}
	})
}

func TestResetReachesTheOtherApplication(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		for name, nearResets := range map[string]bool{"near": true, "far": false} {
			for _, halfClosed := range []bool{false, true} {
				t.Run(name+map[bool]string{true: " after fin"}[halfClosed], func(t *testing.T) {
					r := newRig(t, useTLS)
					near, done := r.connect(t)
					far := r.farEnd(t)
					resetter, other := near, far
					if !nearResets {
						resetter, other = far, near
					}
					if halfClosed {
						must(t, resetter.CloseWrite())
						if _, err := other.Read(make([]byte, 1)); err != io.EOF {
							t.Fatal(err)
						}
					}
					abort(resetter)
					if halfClosed { // only data shows that the reader is gone
						for {
							if _, err := other.Write(make([]byte, 1000)); err != nil {
								break
							}
							time.Sleep(time.Millisecond)
						}
					} else {
						wantReset(t, other)
					}
					res, farRes := await(t, done), await(t, r.farResult)
					if res.Reason == 0 || farRes.Reason == 0 || res.Err != nil || farRes.Err != nil {
						t.Errorf("near %+v, far %+v", res, farRes)
					}
					if !r.opener.Idle() {
						t.Error("a reset cost the tunnel")
					}
					r.roundTrip(t)
				})
			}
		}
	})
}

// roundTrip proves that the tunnel still works.
func (r *rig) roundTrip(t *testing.T) {
	t.Helper()
	near, done := r.connect(t)
	if _, err := near.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	far := r.farEnd(t)
	buf := make([]byte, 4)
	if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("%q %v", buf, err)
	}
	must(t, near.CloseWrite())
	must(t, far.CloseWrite())
	if res := await(t, done); res.Err != nil || res.Reason != 0 {
		t.Fatalf("%+v", res)
	}
	await(t, r.farResult)
}

func TestRefusalResetsTheApplicationAndKeepsTheTunnel(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for _, reason := range []Reason{ReasonConnectionRefused, ReasonNotAllowed, Reason(200)} {
			r.refuse = reason
			near, done := r.connect(t)
			// Already on its way. Of the write and the read, the first to fail
			// is told of the reset.
			_, werr := near.Write(make([]byte, 100_000))
			if !errors.Is(werr, syscall.ECONNRESET) && !errors.Is(werr, syscall.EPIPE) {
				wantReset(t, near)
			}
			if res := await(t, done); !res.Refused || !res.Remote || res.Reason != reason || res.Err != nil {
				t.Errorf("%+v", res)
			}
			if !r.opener.Idle() {
				t.Fatal("a refusal cost the tunnel")
			}
		}
		r.refuse = 0
		r.roundTrip(t)
	})
}

func TestOneTunnelCarriesManyStreams(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for range 200 {
			r.roundTrip(t)
		}
		if got := r.opener.state.seq; got != 200 {
			t.Errorf("%d streams", got)
		}
	})
}

// Both applications do random things at random times; whatever happens, the
// stream ends, and the tunnel either works afterwards or is closed.
func TestRandomEndingsNeverConfuseTheTunnel(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for i := range 300 {
			rnd := mrand.New(mrand.NewPCG(uint64(i), 7))
			near, done := r.connect(t)
			far := r.farEnd(t)
			var wg sync.WaitGroup
			for _, app := range []*net.TCPConn{near, far} {
				seed := rnd.Uint64()
				wg.Go(func() { behave(app, mrand.New(mrand.NewPCG(seed, 9))) })
			}
			wg.Wait()
			if res := await(t, done); res.Err != nil {
				t.Fatalf("stream %d: %+v", i, res)
			}
			await(t, r.farResult)
			if !r.opener.Idle() {
				t.Fatalf("stream %d: the tunnel cannot be used again", i)
			}
		}
		r.roundTrip(t)
	})
}

func behave(c *net.TCPConn, r *mrand.Rand) {
	for range r.IntN(6) {
		switch r.IntN(5) {
		case 0, 1:
			c.Write(make([]byte, 1+r.IntN(40_000)))
		case 2:
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			c.Read(make([]byte, 1+r.IntN(60_000)))
		case 3:
			c.CloseWrite()
		case 4:
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
	if r.IntN(2) == 0 {
		abort(c)
		return
	}
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	io.Copy(io.Discard, c)
	c.Close()
}
