// SPDX-License-Identifier: Apache-2.0

// Package tunnel carries one connection, or one flow of datagrams, at a time
// over a connection between two node daemons, and keeps this invariant: a tunnel is used again only when
// both sides have finished its last stream, and it is closed on the first byte
// that the protocol does not allow.
//
// # Wire format
//
// A frame is 1 byte type, 3 bytes length (big endian), payload:
//
//	0x01 OPEN    protocol (1 byte, 6 or 17), family (1 byte, 4 or 6), source address, port, destination address, port
//	0x02 DATA    1 to 262140 bytes of the connection
//	0x03 FIN     nothing: end of my direction (half-close)
//	0x04 RST     stream number (4 bytes), reason (1 byte): I give the stream up
//	0x05 REFUSE  reason (1 byte): the acceptor never had the stream
//	0x06 DGRAM   0 to 65507 bytes: one datagram of the flow
//	0x07 READY   nothing: the acceptor's first frame, once, before any stream
//	0x08 RETIRE  nothing: the acceptor will end soon; open no further stream
//
// READY says that the acceptor has verified the opener: in TLS 1.3 the opener
// finishes its handshake before that, and would take a refused tunnel for a
// good one. RETIRE is a wish: an OPEN that crosses it is served, so that no
// connection fails because the acceptor hands over to a successor.
//
// Both sides count OPENs, from 1. The opener may send DATA right after OPEN. A
// stream of UDP (protocol 17) carries DGRAM where one of TCP carries DATA; the
// other kind ends the tunnel. The order of datagrams is kept.
// The rules of the stream are at type state.
package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Tunnel is one side of a tunnel.
type Tunnel struct {
	conn net.Conn  // the TCP connection
	tls  *tls.Conn // nil without TLS
	wire *wire     // under tls
	in   *inlet    // plain tunnels read here
	out  *outlet   // plain tunnels write here
	bufs *account

	dec     decoder
	plain   *buffer // decrypted data; held only while it is worked on
	pending []byte  // received and not yet decoded
	split   bool    // crypto/tls may have more of the record that plain is a part of

	part     *buffer // the beginning of a datagram whose rest has not arrived
	partLen  int
	partLost bool // there was no memory for it

	wmu sync.Mutex // one frame, or one batch of frames, at a time

	mu       sync.Mutex // guards the fields below
	state    state
	header   Header // of the current or last stream
	stream   *stream
	reserved bool

	resetting atomic.Bool // a reset waits for the write side
	opener    bool        // as state.opener, to read without mu
	closed    atomic.Bool
	spent     atomic.Bool // the last stream's reason was final, or the acceptor retires
	ending    atomic.Pointer[Ending]

	session any    // what the acceptor's Session made for this tunnel
	swept   uint32 // stream number at the server's last sweep
}

// Dialed makes the opener's side of a tunnel. cfg nil means no TLS. On error
// conn is closed. ctx bounds the handshake.
func Dialed(ctx context.Context, conn net.Conn, cfg *tls.Config, bufs *Buffers) (*Tunnel, error) {
	return start(ctx, conn, bufs, true, cfg, tls.Client)
}

// Accepted makes the acceptor's side of a tunnel.
func Accepted(ctx context.Context, conn net.Conn, cfg *tls.Config, bufs *Buffers) (*Tunnel, error) {
	return start(ctx, conn, bufs, false, cfg, tls.Server)
}

func start(ctx context.Context, conn net.Conn, bufs *Buffers, opener bool, cfg *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (*Tunnel, error) {
	t := &Tunnel{conn: conn, bufs: &account{Buffers: bufs}, opener: opener, state: state{opener: opener}}
	if cfg == nil {
		t.in, t.out = newInlet(conn, t.bufs, 0, 0), newOutlet(conn, t.abandoned)
	} else {
		t.wire = newWire(conn, t.bufs, t.abandoned)
		t.in = t.wire.in
		t.tls = side(t.wire, cfg)
	}
	err := t.greet(ctx)
	t.release() // an idle tunnel holds nothing
	if err != nil {
		t.in.drop()
		_ = conn.Close()
		return nil, fmt.Errorf("tunnel handshake with %s: %w", conn.RemoteAddr(), err)
	}
	return t, nil
}

func (t *Tunnel) greet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = t.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if t.tls != nil {
		if err := t.tls.HandshakeContext(ctx); err != nil {
			return err
		}
	}
	if !t.opener {
		return t.write([]byte{typeReady, 0, 0, 0})
	}
	ev, err := t.event()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case ev.typ != typeReady:
		return violation("frame type %#02x instead of READY", ev.typ)
	}
	if !stop() { // too late to undo the deadline
		return context.Cause(ctx)
	}
	return nil
}

// State is the TLS state; zero without TLS.
func (t *Tunnel) State() tls.ConnectionState {
	if t.tls == nil {
		return tls.ConnectionState{}
	}
	return t.tls.ConnectionState()
}

// RemoteAddr is the other daemon's address.
func (t *Tunnel) RemoteAddr() net.Addr { return t.conn.RemoteAddr() }

// LocalAddr is this daemon's address.
func (t *Tunnel) LocalAddr() net.Addr { return t.conn.LocalAddr() }

// Charge has what the tunnel holds in buffers count against owner's part of the
// budget. Call it before the tunnel is used.
func (t *Tunnel) Charge(owner string) { t.bufs.owner = owner }

// Session is the value that ServerConfig.Session made for this tunnel.
func (t *Tunnel) Session() any { return t.session }

// Current returns what the tunnel carries, or is reserved for, if anything.
func (t *Tunnel) Current() (Header, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.header, t.reserved || !t.state.over()
}

// Reserve makes Current return h from now on, until Relay has carried it or
// the tunnel is back in its pool. Reserve first and ask whether h is allowed
// afterwards: then no change of the rules can slip in between.
func (t *Tunnel) Reserve(h Header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header, t.reserved = h, true
}

func (t *Tunnel) unreserve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved = false
}

// Close ends an idle tunnel in order.
func (t *Tunnel) Close() {
	if t.closed.Swap(true) {
		return
	}
	if t.tls != nil {
		_ = t.tls.Close()
	}
	_ = t.conn.Close()
}

// abandoned is asked while a write to the tunnel is blocked: has the stream
// been reset, so that the data is no longer wanted?
func (t *Tunnel) abandoned() bool {
	if t.resetting.Load() || t.closed.Load() {
		return true
	}
	t.mu.Lock()
	s := t.stream
	t.mu.Unlock()
	return s != nil && s.app.broken()
}

// recv waits for data and returns the next events' bytes in t.pending.
func (t *Tunnel) recv() error {
	if t.tls == nil {
		if err := t.in.fill(0); err != nil {
			return err
		}
		t.pending = t.in.bytes()
		return nil
	}
	if !t.inRecord() {
		if err := t.wire.wait(); err != nil {
			return err
		}
	}
	if t.inRecord() || !t.wire.ready() {
		return t.decryptPart()
	}
	return t.decrypt()
}

// inRecord reports whether crypto/tls has a part of a record.
func (t *Tunnel) inRecord() bool { return t.split || t.wire.left > 0 }

// decryptPart waits for a record and turns a part of it, or all, into
// plaintext. It is for tunnels over their budget: what crypto/tls needs to hold
// of a record, it keeps in any case.
func (t *Tunnel) decryptPart() error {
	if t.plain == nil {
		t.plain = t.bufs.get(classSmall)
	}
	n, err := t.tls.Read(t.plain.b)
	t.split = n == len(t.plain.b)
	t.pending = t.plain.b[:n]
	if n > 0 {
		return nil
	}
	return err
}

// decrypt turns all complete records into one run of plaintext. It never
// waits for bytes that have not arrived.
func (t *Tunnel) decrypt() error {
	t.plain = t.bufs.get(classFor(t.wire.plainReady()))
	if t.wire.record()-recordOverhead > len(t.plain.b) {
		return t.decryptPart()
	}
	n := 0
	var err error
	for t.wire.ready() && t.wire.record()-recordOverhead <= len(t.plain.b)-n && err == nil {
		var m int
		m, err = t.tls.Read(t.plain.b[n:])
		n += m
	}
	t.pending = t.plain.b[:n]
	if n > 0 {
		return nil // a sticky error comes back with the next read
	}
	if err == nil {
		err = violation("TLS record of %d bytes", t.wire.record())
	}
	return err
}

// release gives the memory behind t.pending back.
func (t *Tunnel) release() {
	if t.tls == nil {
		t.in.consume(len(t.in.bytes()))
	} else if t.plain != nil {
		t.bufs.put(t.plain)
		t.plain = nil
	}
	t.pending = nil
}

// event returns the next event; its data is valid until the next call.
func (t *Tunnel) event() (event, error) {
	for {
		if len(t.pending) > 0 {
			ev, rest, ok, err := t.dec.next(t.pending)
			t.pending = rest
			if err != nil || ok {
				return ev, err
			}
		}
		t.release()
		if err := t.recv(); err != nil {
			if errors.Is(err, io.EOF) && t.dec.midFrame() {
				err = io.ErrUnexpectedEOF
			}
			return event{}, err
		}
	}
}

// write sends whole frames. Callers hold wmu.
func (t *Tunnel) write(p []byte) error {
	if t.tls == nil {
		_, err := t.out.write(p)
		return err
	}
	if len(p) <= recordPlain {
		_, err := t.tls.Write(p)
		return err
	}
	t.wire.cork()
	var err error
	for len(p) > 0 && err == nil {
		n := min(len(p), recordPlain)
		_, err = t.tls.Write(p[:n])
		p = p[n:]
	}
	if ferr := t.wire.uncork(); err == nil {
		err = ferr
	}
	return err
}

// Idle reports whether the tunnel may carry another stream: no stream is
// open, and the other side has not closed. It takes in what has arrived
// since, without waiting; only late resets are allowed to have arrived.
func (t *Tunnel) Idle() bool {
	t.mu.Lock()
	over := t.state.over()
	t.mu.Unlock()
	if t.closed.Load() || t.spent.Load() || !over || t.tls != nil && t.inRecord() {
		return false
	}
	defer t.release()
	for range lateLooks {
		some, err := t.in.poll()
		if err != nil {
			return false
		}
		if !some {
			return !t.dec.midFrame()
		}
		if !t.takeLate() {
			return false
		}
	}
	return false
}

// lateLooks is how often Idle looks for more of what may come late: one reset
// for each stream, and not whatever a peer likes to send.
const lateLooks = 16

// takeLate decodes what is buffered, outside any stream.
func (t *Tunnel) takeLate() bool {
	if t.tls == nil {
		t.pending = t.in.bytes()
	} else {
		if !t.wire.ready() {
			return true
		}
		// What is there may be a message of TLS itself, after which crypto/tls
		// would wait for the next record. Ours are none between streams.
		_ = t.conn.SetReadDeadline(time.Unix(1, 0))
		err := t.decrypt()
		_ = t.conn.SetReadDeadline(time.Time{})
		if err != nil || t.split {
			return false
		}
	}
	for len(t.pending) > 0 {
		ev, rest, ok, err := t.dec.next(t.pending)
		t.pending = rest
		if err != nil {
			return false
		}
		if !ok {
			break
		}
		t.mu.Lock()
		_, err = t.state.receive(ev)
		t.mu.Unlock()
		if err != nil || ev.typ == typeOpen {
			return false
		}
		if ev.typ == typeRetire {
			t.spent.Store(true)
			return false
		}
	}
	t.release()
	return true
}
