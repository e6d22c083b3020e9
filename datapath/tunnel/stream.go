// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// endpoint is a stream's end at the application. pump and deliver are called by
// one goroutine each, abort, shut and close by any.
type endpoint interface {
	// pump carries what the application sends into the tunnel until its
	// direction ends. An error means that the tunnel is broken.
	pump(s *stream) error
	// drop gives pump's memory back.
	drop()
	// deliver gives the application what the other side sent.
	deliver(s *stream, p []byte) error
	shut()        // the other side has finished its direction
	abort()       // the stream was given up
	close()       // it ended in order
	broken() bool // has the application given the stream up?
}

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

// stream is one connection, or flow of datagrams, of an application, carried
// by a tunnel.
type stream struct {
	t      *Tunnel
	app    endpoint
	seq    uint32
	prefix []byte // OPEN frame that leaves with the first data

	sent, received atomic.Int64
	upDone         chan struct{}
	interrupted    atomic.Bool

	once sync.Once
	mu   sync.Mutex
	res  Result
	end  func(Result) // acceptor: called once, when the stream is over
}

// Relay carries app through the tunnel as the opener and returns when both
// sides have finished with the stream. app is closed then, in order or by
// reset as the other side's application ended.
func (t *Tunnel) Relay(app *net.TCPConn, h Header) Result {
	return t.relay(newByteSide(t, app), h, ProtoTCP)
}

// RelayPackets carries a flow of datagrams as Relay does a connection. It
// begins with what was handed to app, and returns when app's Finish, the other
// side or an end of the tunnel has ended it. app stays open where it ended in
// order.
func (t *Tunnel) RelayPackets(app *Packets, h Header) Result {
	return t.relay(newPacketSide(t, app), h, ProtoUDP)
}

func (t *Tunnel) relay(app endpoint, h Header, proto uint8) Result {
	s := newStream(t, app)
	if failed := t.open(s, h, proto); failed != nil {
		app.abort()
		return *failed
	}
	return t.carry(s)
}

func newStream(t *Tunnel, app endpoint) *stream {
	return &stream{t: t, app: app, upDone: make(chan struct{})}
}

// open makes s the tunnel's stream, for carry, or says why it cannot be.
func (t *Tunnel) open(s *stream, h Header, proto uint8) *Result {
	err := h.check()
	if err == nil && h.Proto != proto {
		err = fmt.Errorf("opening a stream of protocol %d: the application's side is of protocol %d", h.Proto, proto)
	}
	if err != nil {
		return &Result{Reason: ReasonInternal, Err: err}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.state.opener || !t.state.over() || t.closed.Load() {
		res := t.ended(errors.New("opening a stream: the tunnel is busy or closed"))
		return &res
	}
	t.state.begin(h.Proto)
	t.header, t.reserved = h, false
	s.seq = t.state.seq
	s.prefix = appendOpen(make([]byte, 0, maxOpen), h)
	t.stream = s
	return nil
}

// carry returns when both sides have finished with the stream.
func (t *Tunnel) carry(s *stream) Result {
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
	if act != actDeliver {
		t.dropPart()
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
		if ev.typ == typeDgram {
			return s.datagram(ev)
		}
		return s.app.deliver(s, ev.data)
	case actFin:
		s.app.shut()
	case actAbort, actAnswer:
		s.set(Result{Reason: ev.reason, Remote: true, Refused: ev.typ == typeRefuse})
		s.app.abort()
		if act == actAnswer {
			return s.reset(ReasonAborted)
		}
	}
	return nil
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
	err := s.app.pump(s)
	s.app.drop()
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

// sendData sends b[from:to] as one frame, made where it lies: appHead bytes in
// front of it are free. more is false when the stream takes nothing any more.
func (s *stream) sendData(b []byte, from, to int) (more bool, err error) {
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if !s.may(typeData) {
		return false, nil
	}
	prefix := s.takePrefix()
	frame := b[from-headerLen-len(prefix) : to]
	copy(frame, prefix)
	putHeader(frame[len(prefix):], typeData, to-from)
	err = s.t.write(frame)
	s.sent.Add(int64(to - from))
	return true, err
}

func (s *stream) sendOpen() error {
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if open := s.takePrefix(); open != nil {
		return s.t.write(open)
	}
	return nil // it left with a reset
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
			s.app.close()
		} else {
			s.app.abort()
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
	t.ending.CompareAndSwap(nil, &Ending{Reason: reason})
	s.set(t.ended(fmt.Errorf("stream %d: %w", s.seq, err))) // before Kill, which knows no cause
	t.Kill(reason)
	s.app.abort()
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
	s.app.abort()
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
