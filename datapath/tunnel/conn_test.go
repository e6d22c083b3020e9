// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// open begins a stream as a Conn; its result arrives on the channel.
func (r *rig) open(t *testing.T) (*Conn, chan Result) {
	done := make(chan Result, 1)
	c := r.opener.Open(testHeader, func(res Result) { done <- res })
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c, done
}

func wantConnError(t *testing.T, err error, want Reason) *ConnError {
	t.Helper()
	var end *ConnError
	if !errors.As(err, &end) || end.Reason != want {
		t.Fatalf("got %v, want an end for %q", err, want)
	}
	return end
}

func TestConnPassesNettest(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			r := newRig(t, useTLS)
			c := r.opener.Open(testHeader, nil)
			far := await(t, r.far)
			return c, far, func() { c.Close(); far.Close() }, nil
		})
	})
}

func TestConnCarriesBytesUnchangedAndLeavesTheTunnelUsable(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for _, size := range []int{1, 1000, 70_000, 3_000_017} {
			c, done := r.open(t)
			up, down := randomBytes(size), randomBytes(size)
			far := r.farEnd(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Write(up); err != nil || c.CloseWrite() != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := far.Write(down); err != nil || far.CloseWrite() != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, up) {
					t.Errorf("far: %d bytes, %v", len(got), err)
				}
			})
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, down) {
				t.Errorf("near: %d bytes, %v", len(got), err)
			}
			wg.Wait()
			if res := await(t, done); res.Reason != 0 || res.Err != nil || res.Sent != int64(size) || res.Received != int64(size) {
				t.Errorf("%+v", res)
			}
			await(t, r.farResult)
			if !r.opener.Idle() {
				t.Fatal("the tunnel cannot be used again")
			}
			must(t, c.Close())
			if n, err := c.Write([]byte("late")); n != 0 || !errors.Is(err, net.ErrClosed) {
				t.Errorf("a closed connection takes %d bytes, %v", n, err)
			}
		}
	})
}

func TestConnIsOpenBeforeAnythingIsWritten(t *testing.T) {
	r := newRig(t, true)
	c, _ := r.open(t)
	far := r.farEnd(t)
	if _, err := io.WriteString(far, "220 ready"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 9)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "220 ready" {
		t.Errorf("%q, %v", got, err)
	}
	if c.LocalAddr().String() != testHeader.Src.String() || c.RemoteAddr().String() != testHeader.Dst.String() {
		t.Errorf("%s to %s", c.LocalAddr(), c.RemoteAddr())
	}
}

func TestConnCloseSendsWhatWasWrittenFirst(t *testing.T) {
	r := newRig(t, true)
	c, done := r.open(t)
	msg := randomBytes(200_000)
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	must(t, c.Close())
	far := r.farEnd(t)
	if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, msg) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	must(t, far.Close())
	if res := await(t, done); res.Reason != 0 {
		t.Errorf("%+v", res)
	}
	if !r.opener.Idle() {
		t.Error("the tunnel cannot be used again")
	}
}

func TestConnThatIsClosedUnreadOrWhileTheOtherSideSendsIsReset(t *testing.T) {
	for name, unread := range map[string]bool{"unread": true, "while it sends": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true)
			c, done := r.open(t)
			far := r.farEnd(t)
			if unread {
				if _, err := far.Write([]byte("xy")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			must(t, c.Close())
			if !unread {
				if _, err := far.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if unread { // otherwise the end in order may be seen first
				wantReset(t, far)
			}
			if res := await(t, done); res.Reason != ReasonReset {
				t.Errorf("%+v", res)
			}
			if res := await(t, r.farResult); res.Reason != ReasonReset || !res.Remote {
				t.Errorf("far: %+v", res)
			}
			if !r.opener.Idle() {
				t.Error("the tunnel cannot be used again")
			}
		})
	}
}

func TestConnThatIsResetNeverLooksComplete(t *testing.T) {
	r := newRig(t, true)
	c, done := r.open(t)
	far := r.farEnd(t)
	if _, err := c.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	must(t, c.Reset())
	wantReset(t, far)
	if res := await(t, done); res.Reason != ReasonReset {
		t.Errorf("%+v", res)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error("closing what was reset:", err)
	}
}

func TestConnGivesUpOnASideThatNeverFinishes(t *testing.T) {
	r := newRig(t, true)
	c, done := r.open(t)
	far := r.farEnd(t)
	c.lingers = 10 * time.Millisecond
	must(t, c.Close())
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v: not closed in order first", n, err)
	}
	if res := await(t, done); res.Reason != ReasonReset {
		t.Errorf("%+v", res)
	}
	if res := await(t, r.farResult); res.Reason != ReasonReset || !res.Remote {
		t.Errorf("far: %+v", res)
	}
	if !r.opener.Idle() {
		t.Error("the tunnel cannot be used again")
	}
}

func TestConnSeesWhyItEnded(t *testing.T) {
	for name, tt := range map[string]struct {
		refuse Reason
		end    func(t *testing.T, r *rig, far *net.TCPConn)
		want   Reason
		is     error
		says   string
	}{
		"refused": {refuse: ReasonNotAllowed, want: ReasonNotAllowed, is: syscall.ECONNREFUSED, says: "the other node refuses the connection: not-allowed"},
		"reset": {want: ReasonReset, is: syscall.ECONNRESET, says: "the other side reset the connection: reset", end: func(_ *testing.T, _ *rig, far *net.TCPConn) {
			abort(far)
		}},
		"ended by the other node": {want: ReasonDenied, is: syscall.ECONNRESET, says: "the other side reset the connection: denied", end: func(_ *testing.T, r *rig, _ *net.TCPConn) {
			r.acceptor.End(Ending{Reason: ReasonDenied})
		}},
		"ended here": {want: ReasonPolicyChanged, is: os.ErrPermission, says: "the connection was ended: policy-changed: permission denied", end: func(_ *testing.T, r *rig, _ *net.TCPConn) {
			r.opener.End(Ending{Reason: ReasonPolicyChanged, Why: os.ErrPermission})
		}},
		"tunnel lost": {want: ReasonTunnelLost, is: syscall.ECONNRESET, says: "the connection was lost with its tunnel", end: func(_ *testing.T, r *rig, _ *net.TCPConn) {
			r.acceptor.sever()
		}},
		"tunnel closed without a word": {want: ReasonTunnelLost, is: syscall.ECONNRESET, says: "the connection was lost with its tunnel", end: func(_ *testing.T, r *rig, _ *net.TCPConn) {
			_ = r.acceptor.conn.(*net.TCPConn).CloseWrite()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, useTLS bool) {
				r := newRig(t, useTLS)
				r.refuse = tt.refuse
				c, done := r.open(t)
				if tt.end != nil {
					far := r.farEnd(t)
					if _, err := far.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					tt.end(t, r, far)
				}
				_, err := c.Read(make([]byte, 1))
				if end := wantConnError(t, err, tt.want); end.Refused != (tt.refuse != 0) || !errors.Is(err, tt.is) || !bytes.HasPrefix([]byte(err.Error()), []byte(tt.says)) {
					t.Errorf("%+v: %v", end, err)
				}
				await(t, done)
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("what has ended can be written to")
				} else {
					wantConnError(t, err, tt.want)
				}
			})
		})
	}
}

func TestConnOfABusyOrClosedTunnelFails(t *testing.T) {
	r := newRig(t, true)
	first, _ := r.open(t)
	busy, done := r.open(t)
	if _, err := busy.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Error(err)
	}
	await(t, done)
	must(t, busy.Close())
	far := r.farEnd(t) // the first goes on
	go io.Copy(far, far)
	if _, err := io.WriteString(first, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.opener.Kill(ReasonShutdown)
	closed, done := r.open(t)
	_, err := closed.Write([]byte("x"))
	wantConnError(t, err, ReasonShutdown)
	await(t, done)
}

// A writer that is held up by a side that does not read comes back at its
// deadline, and the rest goes on when that side reads.
func TestConnDeadlineLosesAndRepeatsNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		c, _ := r.open(t)
		far := r.farEnd(t)
		msg := randomBytes(32 << 20)
		must(t, c.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		n, err := c.Write(msg)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(msg) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		must(t, c.SetWriteDeadline(time.Time{}))
		go func() {
			if _, err := c.Write(msg[n:]); err != nil || c.CloseWrite() != nil {
				t.Error(err)
			}
		}()
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, msg) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// Whoever reads nothing holds what was foreseen, and finds out when the other
// side has gone.
func TestConnThatReadsNothingLosesItsTunnelWithTheOtherSide(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		c, done := r.open(t)
		far := r.farEnd(t)
		for err := error(nil); err == nil; { // until all queues between are full
			must(t, far.SetWriteDeadline(time.Now().Add(700*time.Millisecond)))
			_, err = far.Write(make([]byte, 256<<10))
		}
		abort(far)
		if res := await(t, done); res.Reason != ReasonStalled {
			t.Errorf("%+v", res)
		}
		_, err := c.Write([]byte("x"))
		wantConnError(t, err, ReasonStalled)
	})
}

func TestIdleConnHoldsNoBuffers(t *testing.T) {
	bufs := &Buffers{Budget: NewBudget(1<<30, 1<<30)}
	r := newRigOn(t, true, bufs, "from", "to")
	c, _ := r.open(t)
	far := r.farEnd(t)
	go io.Copy(far, far)
	msg := randomBytes(1 << 20)
	go c.Write(msg)
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
		t.Fatal(err)
	}
	for bufs.Budget.Used() != 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestConnGoesOnWithoutABudget(t *testing.T) {
	r := newRigOn(t, true, &Buffers{Budget: NewBudget(0, 0)}, "from", "to")
	c, _ := r.open(t)
	far := r.farEnd(t)
	go io.Copy(far, far)
	msg := randomBytes(1 << 20)
	go c.Write(msg)
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
		t.Fatal(err)
	}
}
