// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
)

// Accept answers one OPEN: the application's connection, or the reason to
// refuse. end is called once, when the stream is over.
type Accept func(ctx context.Context, h Header) (app *net.TCPConn, end func(Result), refuse Reason)

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
	if app == nil {
		t.wmu.Lock()
		defer t.wmu.Unlock()
		t.mu.Lock()
		t.stream = nil
		t.state.maySend(typeRefuse)
		t.mu.Unlock()
		return t.write([]byte{typeRefuse, 0, 0, refuseLen, byte(refuse)})
	}
	s := newStream(t, app)
	s.seq, s.end = seq, end
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
