// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// appHead is free space in front of application data: an OPEN frame and a
// DATA header fit, so both leave with the first bytes in one write.
const appHead = maxOpen + headerLen

// Result is what became of one stream.
type Result struct {
	Sent     int64 // application bytes into the tunnel
	Received int64 // application bytes out of the tunnel
	Reason   Reason
	Refused  bool  // the acceptor refused it: Reason says why
	Remote   bool  // Reason was given by the other side
	Err      error // of the tunnel, when it broke
	Why      error // from the Ending, where this side ended the tunnel
}

// stream is one connection of an application, carried by a tunnel.
type stream struct {
	t      *Tunnel
	app    *net.TCPConn
	seq    uint32
	in     *inlet
	out    *outlet
	prefix []byte // OPEN frame that leaves with the first data

	sent, received atomic.Int64
	shut           atomic.Bool // we sent FIN to the application
	upDone         chan struct{}
	interrupted    atomic.Bool

	once sync.Once
	mu   sync.Mutex
	res  Result
	end  func(Result) // acceptor: called once, when the stream is over
}

func newStream(t *Tunnel, app *net.TCPConn) *stream {
	s := &stream{t: t, app: app, in: newInlet(app, t.bufs, appHead, slack-appHead+headerLen), upDone: make(chan struct{})}
	s.out = newOutlet(app, t.broken)
	return s
}

// Relay carries app through the tunnel as the opener and returns when both
// sides have finished with the stream. app is closed then, in order or by
// reset as the other side's application ended.
func (t *Tunnel) Relay(app *net.TCPConn, h Header) Result {
	if err := h.check(); err != nil {
		abort(app)
		return Result{Reason: ReasonInternal, Err: err}
	}
	s := newStream(t, app)
	t.mu.Lock()
	if !t.state.opener || !t.state.over() || t.closed.Load() {
		t.mu.Unlock()
		abort(app)
		return t.ended(errors.New("opening a stream: the tunnel is busy or closed"))
	}
	t.state.begin()
	t.header, t.reserved = h, false
	s.seq = t.state.seq
	t.stream = s
	t.mu.Unlock()
	s.prefix = appendOpen(make([]byte, 0, maxOpen), h)
	go s.up()
	for !s.over() {
		if _, err := t.step(); err != nil {
			if s.over() && errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			t.fail(s, err)
			break
		}
	}
	<-s.upDone
	if s.interrupted.Load() {
		_ = t.conn.SetReadDeadline(time.Time{})
	}
	t.release()
	res := s.finish()
	if res.Reason.final() {
		t.spent.Store(true)
	}
	return res
}

// step handles one event of the other side. opened is set when it began a
// stream, which only an acceptor sees.
func (t *Tunnel) step() (opened *Header, err error) {
	ev, err := t.event()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	act, err := t.state.receive(ev)
	s, over := t.stream, t.state.over()
	if act == actOpen {
		t.header = ev.header
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if act == actOpen {
		return &ev.header, nil
	}
	if ev.typ == typeRetire {
		t.spent.Store(true)
		return nil, nil
	}
	if s == nil { // refused: what still arrives is discarded
		return nil, nil
	}
	err = s.receive(act, ev)
	if (over || act == actAnswer) && s.end != nil {
		s.finish()
	}
	return nil, err
}

func (s *stream) receive(act action, ev event) error {
	switch act {
	case actDeliver:
		return s.deliver(ev.data)
	case actFin:
		s.shut.Store(true)
		_ = s.app.CloseWrite()
	case actAbort, actAnswer:
		s.set(Result{Reason: ev.reason, Remote: true, Refused: ev.typ == typeRefuse})
		abort(s.app)
		if act == actAnswer {
			return s.reset(ReasonAborted)
		}
	}
	return nil
}

// deliver writes data to the application. A failure is the application's
// reset: the other side is told, the tunnel lives on.
func (s *stream) deliver(p []byte) error {
	n, err := s.out.write(p)
	s.received.Add(int64(n))
	if err == nil || errors.Is(err, errStalled) {
		return err
	}
	s.set(Result{Reason: ReasonReset})
	abort(s.app)
	return s.reset(ReasonReset)
}

// reset sends RST, unless the stream needs none any more. When the tunnel is
// ended, whoever is first to reset the stream tells the other side why.
func (s *stream) reset(r Reason) error {
	t := s.t
	if e := t.ending.Load(); e != nil {
		r = e.Reason
	}
	t.resetting.Store(true)
	t.wmu.Lock()
	defer t.wmu.Unlock()
	defer t.resetting.Store(false)
	if !s.may(typeRst) {
		return nil
	}
	frame := make([]byte, 0, maxOpen+headerLen+rstLen)
	frame = append(frame, s.takePrefix()...)
	return t.write(appendRst(frame, s.seq, r))
}

// takePrefix returns the OPEN frame if it has not left yet. Callers hold wmu.
func (s *stream) takePrefix() []byte {
	p := s.prefix
	s.prefix = nil
	return p
}

func (s *stream) may(typ byte) bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.t.state.seq == s.seq && s.t.state.maySend(typ)
}

func (s *stream) over() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.t.state.seq != s.seq || s.t.state.over()
}

// up carries the application's bytes into the tunnel until its direction
// ends.
func (s *stream) up() {
	defer close(s.upDone)
	err := s.pump()
	s.in.drop()
	switch {
	case err != nil:
		s.t.fail(s, err)
	case !s.over():
		return
	case s.t.opener:
		// The reader may be waiting for a reset that will not come.
		s.interrupted.Store(true)
		_ = s.t.conn.SetReadDeadline(time.Unix(1, 0))
	}
	if s.end != nil {
		s.finish()
	}
}

// pump returns an error only when the tunnel is broken.
func (s *stream) pump() error {
	if s.t.opener {
		if some, _ := s.in.poll(); !some {
			if err := s.sendOpen(); err != nil {
				return err
			}
		}
	}
	for {
		var err error
		if s.in.buffered() == 0 {
			err = s.in.fill(0)
		}
		if s.in.buffered() > 0 {
			more, werr := s.sendData()
			if werr != nil || !more {
				return werr
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return s.sendFin()
		}
		s.set(Result{Reason: ReasonReset})
		abort(s.app)
		return s.reset(ReasonReset)
	}
}

func (s *stream) sendOpen() error {
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if open := s.takePrefix(); open != nil {
		return s.t.write(open)
	}
	return nil // it left with a reset
}

// sendData frames the buffered bytes where they lie.
func (s *stream) sendData() (more bool, err error) {
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if !s.may(typeData) {
		return false, nil
	}
	n := s.in.buffered()
	prefix := s.takePrefix()
	from := s.in.r - headerLen - len(prefix)
	frame := s.in.buf.b[from:s.in.w]
	copy(frame, prefix)
	putHeader(frame[len(prefix):], typeData, n)
	err = s.t.write(frame)
	s.in.consume(n)
	s.sent.Add(int64(n))
	return true, err
}

func (s *stream) sendFin() error {
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if !s.may(typeFin) {
		return nil
	}
	return s.t.write(append(s.takePrefix(), typeFin, 0, 0, 0))
}

// set records the first reason.
func (s *stream) set(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.res.Reason == ReasonNone && s.res.Err == nil {
		s.res = r
	}
}

// finish closes the application's connection and reports.
func (s *stream) finish() Result {
	s.once.Do(func() {
		s.mu.Lock()
		clean := s.res.Reason == ReasonNone
		s.mu.Unlock()
		if clean {
			_ = s.app.Close()
		} else {
			abort(s.app)
		}
		if s.end != nil {
			s.end(s.result())
		}
	})
	return s.result()
}

func (s *stream) result() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.res
	r.Sent, r.Received = s.sent.Load(), s.received.Load()
	return r
}

// fail ends the tunnel because of err; the stream cannot be finished.
func (t *Tunnel) fail(s *stream, err error) {
	reason := ReasonTunnelLost
	if errors.Is(err, errStalled) {
		reason = ReasonStalled
	}
	t.Kill(reason)
	s.set(t.ended(fmt.Errorf("stream %d: %w", s.seq, err)))
	abort(s.app)
}

// Abort gives the current stream up; the tunnel stays usable when the other
// side answers.
func (t *Tunnel) Abort(r Reason) {
	t.mu.Lock()
	s := t.stream
	over := t.state.over()
	t.mu.Unlock()
	if s == nil || over {
		return
	}
	s.set(Result{Reason: r})
	err := s.reset(r) // before the application's end makes up() send its own
	abort(s.app)
	if err != nil {
		t.fail(s, err)
	}
}

// Moved counts the bytes that the current stream carried, both ways.
func (t *Tunnel) Moved() int64 {
	t.mu.Lock()
	s := t.stream
	t.mu.Unlock()
	if s == nil {
		return 0
	}
	return s.sent.Load() + s.received.Load()
}

// appBroken reports whether the application's connection has failed. An end
// of both directions looks like a hang-up too and is none.
func (s *stream) appBroken() bool {
	r := pollNow(s.in.rc)
	return r&unix.POLLERR != 0 || r&unix.POLLHUP != 0 && !s.shut.Load()
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
		p[0].Fd = int32(fd)
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
