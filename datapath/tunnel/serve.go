// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
)

// App is an application's side of a stream: a *net.TCPConn where the header
// says TCP, a *Packets where it says UDP.
type App interface{ Close() error }

// Accept answers one OPEN: the application's side, or nil and the reason to
// refuse. end is called once, when the stream is over; where that was in
// order, Packets are still open.
type Accept func(ctx context.Context, h Header) (app App, end func(Result), refuse Reason)

// Serve is the acceptor's loop: it carries one stream after the other until
// the tunnel closes. The error is nil when the other side closed the tunnel
// between streams.
func (t *Tunnel) Serve(ctx context.Context, accept Accept) error {
	stop := context.AfterFunc(ctx, func() { t.Kill(ReasonShutdown) })
	defer stop()
	for {
		open, err := t.step()
		if open != nil {
			err = t.begin(ctx, *open, accept)
		}
		if err != nil {
			return t.finishServe(err)
		}
	}
}

func (t *Tunnel) finishServe(err error) error {
	t.mu.Lock()
	s, over := t.stream, t.state.over()
	t.mu.Unlock()
	if s != nil && !over {
		t.fail(s, err)
		<-s.upDone
		s.finish()
	}
	t.release()
	if errors.Is(err, ErrProtocol) {
		t.Kill(ReasonInternal)
	}
	t.Close()
	if over && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// retire tells the opener that the tunnel ends soon. A tunnel that cannot be
// written to is found broken by its reader.
func (t *Tunnel) retire() {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if !t.closed.Load() {
		_ = t.write([]byte{typeRetire, 0, 0, 0})
	}
}

// endpoint is app as a stream of h wants it, nil where there is none.
func (t *Tunnel) endpoint(app App, h Header) endpoint {
	switch c := app.(type) {
	case *net.TCPConn:
		if h.Proto == ProtoTCP {
			return newByteSide(t, c)
		}
	case *Packets:
		if h.Proto == ProtoUDP {
			return newPacketSide(t, c)
		}
	}
	return nil
}

// begin asks accept for the application's side and starts the stream.
func (t *Tunnel) begin(ctx context.Context, h Header, accept Accept) error {
	// The last stream's goroutine may still be on its way out.
	t.mu.Lock()
	seq, last := t.state.seq, t.stream
	t.mu.Unlock()
	if last != nil {
		<-last.upDone
	}
	app, end, refuse := accept(ctx, h)
	s := &stream{t: t, app: t.endpoint(app, h), seq: seq, end: end, upDone: make(chan struct{})}
	if s.app == nil {
		if app != nil { // a fault of accept: the wrong kind
			_ = app.Close()
			refuse = ReasonInternal
		}
		t.wmu.Lock()
		defer t.wmu.Unlock()
		t.mu.Lock()
		t.stream = nil
		t.state.maySend(typeRefuse)
		t.mu.Unlock()
		return t.write([]byte{typeRefuse, 0, 0, refuseLen, byte(refuse)})
	}
	t.mu.Lock()
	t.stream = s
	ended := t.closed.Load()
	t.mu.Unlock()
	if ended { // while accept was at work: End did not see this stream
		t.fail(s, errEnded)
	}
	go s.up()
	return nil
}
