// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// appHead is free space in front of application data: an OPEN frame and a
// DATA header fit, so both leave with the first bytes in one write.
const appHead = maxOpen + headerLen

// byteSide is a connection's end at the application.
type byteSide struct {
	app *net.TCPConn
	in  *inlet
	out *outlet
	fin atomic.Bool // we sent FIN to the application
}

func newByteSide(t *Tunnel, app *net.TCPConn) *byteSide {
	return &byteSide{
		app: app, out: newOutlet(app, t.broken),
		in: newInlet(app, t.bufs, appHead, slack-appHead+headerLen),
	}
}

func (b *byteSide) drop()  { b.in.drop() }
func (b *byteSide) close() { _ = b.app.Close() }
func (b *byteSide) abort() { abort(b.app) }

func (b *byteSide) shut() {
	b.fin.Store(true)
	_ = b.app.CloseWrite()
}

func (b *byteSide) pump(s *stream) error {
	if s.t.opener {
		if some, _ := b.in.poll(); !some {
			if err := s.sendOpen(); err != nil {
				return err
			}
		}
	}
	for {
		var err error
		if b.in.buffered() == 0 {
			err = b.in.fill(0)
		}
		if b.in.buffered() > 0 {
			more, werr := s.sendData(b.in.buf.b, b.in.r, b.in.w)
			b.in.consume(b.in.buffered())
			if werr != nil || !more {
				return werr
			}
			continue
		}
		// After a reset whose error the write took, a read sees an end too.
		if errors.Is(err, io.EOF) && !b.broken() {
			return s.sendFin()
		}
		s.set(Result{Reason: ReasonReset})
		b.abort()
		return s.reset(ReasonReset)
	}
}

// deliver writes data to the application. A failure is the application's
// reset: the other side is told, the tunnel lives on.
func (b *byteSide) deliver(s *stream, p []byte) error {
	n, err := b.out.write(p)
	s.received.Add(int64(n))
	if err == nil || errors.Is(err, errStalled) {
		return err
	}
	s.set(Result{Reason: ReasonReset})
	b.abort()
	return s.reset(ReasonReset)
}

// broken reports whether the application's connection has failed. An end
// of both directions looks like a hang-up too and is none.
func (b *byteSide) broken() bool {
	r := pollNow(b.in.rc)
	return r&unix.POLLERR != 0 || r&unix.POLLHUP != 0 && !b.fin.Load()
}

// broken is asked while a write to the application is blocked: has the
// tunnel failed, so that the rest will never come?
func (t *Tunnel) broken() bool {
	return t.closed.Load() || pollNow(t.in.rc)&(unix.POLLERR|unix.POLLHUP) != 0
}

// pollNow returns the poll bits of a connection; a closed one has failed.
func pollNow(rc syscall.RawConn) int16 {
	if rc == nil {
		return 0
	}
	p := []unix.PollFd{{}}
	err := rc.Control(func(fd uintptr) {
		p[0].Fd, p[0].Events = int32(fd), unix.POLLIN
		if _, err := unix.Poll(p, 0); err != nil {
			p[0].Revents = 0
		}
	})
	if err != nil {
		return unix.POLLERR
	}
	return p[0].Revents
}

// abort closes an application's connection so that it sees a reset.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
