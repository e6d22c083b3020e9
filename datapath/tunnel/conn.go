// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lingerFor is how long a closed Conn waits for the other side to finish too:
// as long as Linux keeps a socket in FIN_WAIT_2 (tcp_fin_timeout).
const lingerFor = time.Minute

// Conn is the opener's end of a stream of TCP as a net.Conn, without a socket
// between: what is written leaves in frames of the tunnel, and what is read is
// taken from where it was decrypted. It behaves as a TCP socket does; an end
// that was not in order is a *ConnError, and only the other side's FIN is
// io.EOF. Safe for concurrent use.
type Conn struct {
	t   *Tunnel
	s   *stream
	h   Header
	end func(Result)

	in      connIn
	out     connOut
	gone    atomic.Bool // nobody wants what is still to be sent
	closing sync.Once
	linger  atomic.Pointer[time.Timer] // gives the other side up
	lingers time.Duration
}

// Open begins a stream of TCP as Relay does, and returns the application's end
// of it. end, which may be nil, is called once when both sides have finished
// with the stream, or the tunnel broke; the tunnel is free then. What the
// acceptor says to it is seen by Read and Write.
func (t *Tunnel) Open(h Header, end func(Result)) *Conn {
	c := &Conn{t: t, h: h, end: end, lingers: lingerFor}
	c.in.init()
	c.out.init()
	c.s = newStream(t, c)
	if failed := t.open(c.s, h, ProtoTCP); failed != nil {
		c.fail(connError(*failed))
		c.over(*failed)
		return c
	}
	go func() { c.over(t.carry(c.s)) }()
	return c
}

func (c *Conn) over(res Result) {
	c.stopLinger()
	if c.end != nil {
		c.end(res)
	}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn. What it returns has been taken over, and is sent
// also if the connection is closed then.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(c.t.bufs, p) }

// CloseWrite ends this side's direction once everything is sent; the other goes
// on.
func (c *Conn) CloseWrite() error { return c.out.finish() }

// Close ends the connection as closing a socket does: in order if the other
// side does the same within a minute and sends nothing more, otherwise, or if
// something lies here unread, by a reset. It does not wait for either.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = nil
		unread := c.in.close()
		c.out.close()
		if unread {
			c.giveUp()
		} else if !c.s.over() {
			c.linger.Store(time.AfterFunc(c.lingers, c.giveUp))
			c.stopLinger() // it may have ended meanwhile
		}
	})
	return err
}

// Reset ends the connection at once and so that what was sent does not look
// complete to the other side: for an application that was broken off itself.
func (c *Conn) Reset() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = nil
		c.giveUp() // before the end of what is written could become one in order
		c.in.close()
		c.out.close()
	})
	return err
}

func (c *Conn) stopLinger() {
	if l := c.linger.Load(); l != nil && c.s.over() {
		l.Stop()
	}
}

// giveUp resets the stream, however far it is. The sender does that; where it
// has sent its FIN and gone, a reset may follow.
func (c *Conn) giveUp() {
	c.gone.Store(true)
	c.out.fail(net.ErrClosed)
	go func() {
		if err := c.reset(); err != nil {
			c.t.fail(c.s, err)
		}
	}()
}

func (c *Conn) reset() error {
	c.s.set(Result{Reason: ReasonReset})
	return c.s.reset(ReasonReset)
}

// LocalAddr is the source that the other side was told.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.h.Src) }

// RemoteAddr is the destination that the other side was told.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.h.Dst) }

// SetDeadline implements net.Conn. A Write that comes too late leaves the
// connection usable.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.until.set(t)
	c.out.until.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.until.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.until.set(t)
	return nil
}

// fail ends both directions for err. Whoever read it finds that nothing can be
// written either.
func (c *Conn) fail(err error) {
	c.out.fail(err)
	c.in.fail(err)
}

// The methods below make a Conn the application's side of a stream.

func (c *Conn) pump(s *stream) error {
	for first := true; ; first = false {
		buf, n, what := c.out.next(first)
		switch what {
		case nothing:
			if err := s.sendOpen(); err != nil {
				return err
			}
		case ended:
			return c.reset()
		case finished:
			return s.sendFin()
		case data:
			more, err := s.sendData(buf.b, appHead, appHead+n)
			s.t.bufs.put(buf)
			if err != nil || !more {
				return err
			}
		}
	}
}

func (c *Conn) drop() { c.out.drop(c.t.bufs) }

func (c *Conn) deliver(s *stream, p []byte) error {
	n, err := c.in.give(p, c.t.broken)
	s.received.Add(int64(n))
	if err == nil || err == errStalled {
		return err
	}
	// Closed: as a socket does, it answers what still comes with a reset.
	s.set(Result{Reason: ReasonReset})
	c.abort()
	return s.reset(ReasonReset)
}

func (c *Conn) shut()        { c.in.shut() }
func (c *Conn) close()       {}
func (c *Conn) broken() bool { return c.gone.Load() }

func (c *Conn) abort() {
	c.gone.Store(true)
	c.fail(connError(c.s.result()))
}

// ConnError is why a Conn ended otherwise than in order.
type ConnError struct {
	Reason  Reason
	Refused bool // by the acceptor, which never had the stream: no byte of it reached an application
	Remote  bool // the other side gave the Reason
	Why     error
}

func connError(r Result) *ConnError {
	e := &ConnError{Reason: r.Reason, Refused: r.Refused, Remote: r.Remote, Why: r.Why}
	if e.Why == nil {
		e.Why = r.Err
	}
	return e
}

func (e *ConnError) Error() string {
	what := "the connection was ended"
	switch {
	case e.Refused:
		what = "the other node refuses the connection"
	case e.Remote:
		what = "the other side reset the connection"
	case e.Reason == ReasonTunnelLost:
		what = "the connection was lost with its tunnel"
	}
	if r := e.Reason.String(); r != "" && e.Reason != ReasonTunnelLost {
		what += ": " + r
	}
	if e.Why != nil {
		what += ": " + e.Why.Error()
	}
	return what
}

func (e *ConnError) Unwrap() error { return e.Why }

// Is makes the error one of a socket, for callers that know only those.
func (e *ConnError) Is(target error) bool {
	if e.Refused {
		return target == syscall.ECONNREFUSED
	}
	return target == syscall.ECONNRESET
}
