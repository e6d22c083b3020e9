// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net"
	"time"
)

// tellWithin bounds how long an ended tunnel's connection stays open to tell
// the other side why. No byte of either application moves in that time.
const tellWithin = 500 * time.Millisecond

var errEnded = errors.New("the tunnel was ended")

// Ending is why a tunnel ends before its time.
type Ending struct {
	Reason Reason // what the other side is told
	Why    error  // what only this side knows; the stream's Result has it
}

// End ends the tunnel, whatever it carries: the stream's application is reset
// when End returns, and the other side is told the reason if it takes that
// soon enough. The first ending counts.
func (t *Tunnel) End(e Ending) {
	if !t.claim(e) {
		return
	}
	s := t.resetApp()
	if s == nil {
		t.sever()
		return
	}
	// An orderly close would leave a peer that reads nothing, which is who a
	// reset is for, without any sign of the end.
	time.AfterFunc(tellWithin, t.sever) // also ends a write that is blocked
	go func() {
		if s.reset(e.Reason) != nil {
			t.sever()
		}
	}()
}

// Kill ends the tunnel as End does and tells the other side nothing: its
// connection is gone when Kill returns.
func (t *Tunnel) Kill(r Reason) {
	if t.claim(Ending{Reason: r}) {
		t.sever() // first: a stream that is reset says so
		t.resetApp()
	}
}

// claim reports whether the caller is the one to end the tunnel.
func (t *Tunnel) claim(e Ending) bool {
	t.ending.CompareAndSwap(nil, &e)
	return !t.closed.Swap(true)
}

// resetApp resets the application of the stream under way, if there is one.
func (t *Tunnel) resetApp() *stream {
	t.mu.Lock()
	s, over := t.stream, t.state.over()
	t.mu.Unlock()
	if s == nil || over {
		return nil
	}
	s.set(t.ended(nil))
	s.app.abort() // it may be blocked where the tunnel's end is not seen
	return s
}

// sever closes the connection without waiting for what it still has to send.
func (t *Tunnel) sever() {
	if tcp, ok := t.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = t.conn.Close()
}

// ended is the result of a stream that the tunnel's end took with it.
func (t *Tunnel) ended(err error) Result {
	if e := t.ending.Load(); e != nil {
		return Result{Reason: e.Reason, Why: e.Why, Err: err}
	}
	return Result{Reason: ReasonTunnelLost, Err: err}
}
