// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestSlowReaderStopsTheWriterAtABoundedAmount(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		far := r.farEnd(t)
		chunk := make([]byte, 64<<10)
		sent := 0
		for {
			near.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
			n, err := near.Write(chunk)
			sent += n
			if err != nil {
				break
			}
			if sent > 200<<20 {
				t.Fatal("200 MiB sent and nothing read: no back-pressure")
			}
		}
		// Between the applications lie only socket buffers and one batch.
		t.Logf("blocked after %d KiB", sent>>10)
		near.CloseWrite()
		if n, err := io.Copy(io.Discard, far); err != nil || n != int64(sent) {
			t.Errorf("read %d of %d: %v", n, sent, err)
		}
		far.Close()
		if res := await(t, done); res.Err != nil {
			t.Errorf("%+v", res)
		}
	})
}

func TestResetPropagatesPastAReaderThatNeverReads(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		for name, nearResets := range map[string]bool{"writer resets": true, "reader resets": false} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, useTLS)
				near, done := r.connect(t)
				far := r.farEnd(t)
				for {
					near.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
					if _, err := near.Write(make([]byte, 256<<10)); err != nil {
						break
					}
				}
				began := time.Now()
				if nearResets {
					abort(near)
				} else {
					abort(far)
				}
				await(t, done)
				await(t, r.farResult)
				if d := time.Since(began); d > 3*time.Second {
					t.Errorf("took %s", d)
				}
			})
		}
	})
}

func TestKillResetsBothApplicationsAndNamesTheReason(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		far := r.farEnd(t)
		r.opener.Kill(ReasonPolicyChanged)
		wantReset(t, near)
		wantReset(t, far)
		if res := await(t, done); res.Reason != ReasonPolicyChanged {
			t.Errorf("%+v", res)
		}
		if res := await(t, r.farResult); res.Reason != ReasonTunnelLost || res.Err == nil {
			t.Errorf("%+v; want the cause too", res)
		}
		if err := await(t, r.served); err == nil {
			t.Error("Serve calls a broken tunnel an orderly end")
		}
	})
}

// End resets both applications as Kill does, tells the other side the reason,
// and keeps for this side what the other need not know.
func TestEndTellsTheOtherSideTheReasonAndThisSideWhy(t *testing.T) {
	why := errors.New("the operators said so")
	for name, arrange := range map[string]func(t *testing.T, near, far *net.TCPConn){
		"quiet":                      func(*testing.T, *net.TCPConn, *net.TCPConn) {},
		"application half-closed":    func(t *testing.T, near, _ *net.TCPConn) { must(t, near.CloseWrite()) },
		"other application finished": func(t *testing.T, _, far *net.TCPConn) { must(t, far.CloseWrite()) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, useTLS bool) {
				r := newRig(t, useTLS)
				near, done := r.connect(t)
				far := r.farEnd(t)
				arrange(t, near, far)
				r.opener.End(Ending{Reason: ReasonDenied, Why: why})
				r.opener.End(Ending{Reason: ReasonShutdown}) // too late to be the reason
				if res := await(t, done); res.Reason != ReasonDenied || res.Remote || !errors.Is(res.Why, why) {
					t.Errorf("near %+v", res)
				}
				if res := await(t, r.farResult); res.Reason != ReasonDenied || !res.Remote || res.Why != nil {
					t.Errorf("far %+v", res)
				}
				wantEnd(t, near)
				wantEnd(t, far)
				if r.opener.Idle() {
					t.Error("the tunnel can be used again")
				}
				_ = await(t, r.served)
			})
		})
	}
}

// The acceptor that ended a tunnel keeps its connection open to say so. A pool
// must not take that for a tunnel that can carry another stream.
func TestTunnelThatTheOtherSideEndedIsNotUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		for _, reason := range []Reason{ReasonPolicyChanged, ReasonDenied, ReasonShutdown} {
			r := newRig(t, useTLS)
			near, done := r.connect(t)
			far := r.farEnd(t)
			_, err := near.Write([]byte("x")) // what arrives shows that the stream has begun
			must(t, err)
			_, err = io.ReadFull(far, make([]byte, 1))
			must(t, err)
			r.acceptor.End(Ending{Reason: reason})
			if res := await(t, done); res.Reason != reason || !res.Remote {
				t.Errorf("near %+v, want %s", res, reason)
			}
			if r.opener.Idle() {
				t.Errorf("after %s the tunnel can be used again", reason)
			}
		}
		for _, tt := range []struct {
			refuse Reason
			again  bool
		}{{ReasonNotEnrolled, false}, {ReasonDenied, false}, {ReasonNotAllowed, true}, {ReasonConnectionRefused, true}} {
			r := newRig(t, useTLS)
			r.refuse = tt.refuse
			_, done := r.connect(t)
			_ = await(t, done)
			if again := r.opener.Idle(); again != tt.again {
				t.Errorf("refused with %s: the tunnel can be used again %t, want %t", tt.refuse, again, tt.again)
			}
		}
	})
}

// wantEnd reads until a reset; an application that was told the end of the
// other before may see that first.
func wantEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	for {
		if _, err := c.Read(make([]byte, 1<<10)); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return
		} else if err != nil {
			t.Errorf("got %v, want the end of the connection", err)
			return
		}
	}
}

// The application is reset when End returns, also where telling the other
// side would have to wait for a peer that reads nothing.
func TestEndDoesNotWaitForABlockedPeer(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		_ = r.farEnd(t) // never reads
		for {
			near.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := near.Write(make([]byte, 256<<10)); err != nil {
				break
			}
		}
		r.opener.End(Ending{Reason: ReasonDenied})
		if res := await(t, done); res.Reason != ReasonDenied {
			t.Errorf("near %+v", res)
		}
		_ = await(t, r.farResult)
		_ = await(t, r.served)
	})
}

// A stream that begins while the tunnel is ended must not outlive it.
func TestStreamThatBeginsDuringTheEndDiesWithIt(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		opener, acceptor := tunnelPair(t, useTLS)
		app, appFar := tcpPair(t)
		ended := make(chan Result, 1)
		served := make(chan error, 1)
		go func() {
			served <- acceptor.Serve(t.Context(), func(context.Context, Header) (App, func(Result), Reason) {
				acceptor.End(Ending{Reason: ReasonDenied})
				return app, func(r Result) { ended <- r }, ReasonNone
			})
		}()
		near, nearApp := tcpPair(t)
		done := make(chan Result, 1)
		go func() { done <- opener.Relay(nearApp, testHeader) }()
		if res := await(t, ended); res.Reason != ReasonDenied {
			t.Errorf("acceptor's stream %+v", res)
		}
		wantEnd(t, appFar)
		wantEnd(t, near)
		_ = await(t, done)
		_ = await(t, served)
	})
}

func TestAbortEndsTheStreamAndKeepsTheTunnel(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		far := r.farEnd(t)
		r.opener.Abort(ReasonIdle)
		wantReset(t, near)
		wantReset(t, far)
		if res := await(t, done); res.Reason != ReasonIdle || res.Remote {
			t.Errorf("near %+v", res)
		}
		if res := await(t, r.farResult); res.Reason != ReasonIdle || !res.Remote {
			t.Errorf("far %+v", res)
		}
		if !r.opener.Idle() {
			t.Error("the tunnel cannot be used again")
		}
	})
}

func TestClosingAnIdleTunnelIsAnOrderlyEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		r.roundTrip(t)
		r.opener.Close()
		if err := await(t, r.served); err != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestIdleSeesThatTheOtherSideHasGone(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		r.roundTrip(t)
		if !r.opener.Idle() {
			t.Fatal("a good tunnel is called bad")
		}
		r.acceptor.Kill(ReasonShutdown)
		deadline := time.Now().Add(5 * time.Second)
		for r.opener.Idle() {
			if time.Now().After(deadline) {
				t.Fatal("a dead tunnel is called good")
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// raw speaks to an acceptor byte by byte.
func TestMisbehavingOpenersLoseTheTunnel(t *testing.T) {
	open := appendOpen(nil, testHeader)
	for name, p := range map[string][]byte{
		"garbage":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"data first":        dataFrame("x"),
		"oversized":         append(bytes.Clone(open), typeData, 0xff, 0xff, 0xff),
		"datagram":          append(bytes.Clone(open), 6, 0, 0, 1, 0),
		"data in UDP":       append(appendOpen(nil, udpHeader), dataFrame("x")...),
		"app of other kind": append(appendOpen(nil, udpHeader), 6, 0, 0, 1, 0, 0xff, 0, 0, 0), // is refused; then garbage
		"second open":       append(bytes.Clone(open), open...),
		"data after fin":    append(append(bytes.Clone(open), typeFin, 0, 0, 0), dataFrame("x")...),
		"refuse":            append(bytes.Clone(open), typeRefuse, 0, 0, 1, 1),
		"reset from future": appendRst(bytes.Clone(open), 9, 0),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t)
			t.Cleanup(func() { a.Close() })
			acceptor, err := Accepted(context.Background(), b, nil, new(Buffers))
			must(t, err)
			served := make(chan error, 1)
			go func() {
				served <- acceptor.Serve(context.Background(), func(context.Context, Header) (App, func(Result), Reason) {
					relay, app := tcpPair(t)
					t.Cleanup(func() { app.Close() })
					return relay, func(Result) {}, 0
				})
			}()
			_, err = a.Write(p)
			must(t, err)
			if err := await(t, served); !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
			a.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, a); errors.Is(err, context.DeadlineExceeded) {
				t.Error("the tunnel stays open")
			}
			a.Close()
		})
	}
}

func TestIdleStreamsHoldNoBuffers(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		far := r.farEnd(t)
		big1 := randomBytes(1 << 20)
		go near.Write(big1)
		got := make([]byte, len(big1))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, big1) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		// Ending the stream orders these reads after the goroutines' writes.
		held := func(tun *Tunnel) bool { return tun.in.buf != nil || tun.plain != nil }
		near.Close()
		far.Close()
		await(t, done)
		await(t, r.farResult)
		r.acceptor.Kill(ReasonShutdown)
		await(t, r.served)
		if held(r.opener) || held(r.acceptor) {
			t.Error("a buffer is held while nothing arrives")
		}
	})
}

func TestReasonNamesAreStable(t *testing.T) {
	seen := map[string]bool{}
	for r := range reasonCount {
		name := r.String()
		if r != ReasonNone && name == "" || seen[name] {
			t.Errorf("reason %d: name %q", r, name)
		}
		seen[name] = true
	}
	if Reason(255).String() != "unknown" || ReasonConnectionRefused != 3 {
		t.Error("wire numbers moved")
	}
}
