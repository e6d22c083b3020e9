// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// quickServer serves HTTP/3. Its clients are counted and their keys noted as
// those of the other versions are.
type quickServer struct {
	s         *Server
	transport *quic.Transport
	h3        *http3.Server
}

var errTooMany = errors.New("too many connections")

func newQuickServer(s *Server) *quickServer {
	l := &s.cfg.Limits
	q := &quickServer{s: s}
	q.transport = &quic.Transport{Conn: s.cfg.Listen.QUIC, ConnContext: q.admit}
	q.h3 = &http3.Server{
		Handler: s, MaxHeaderBytes: l.HeaderBytes, IdleTimeout: l.Idle,
		ConnContext: func(ctx context.Context, conn *quic.Conn) context.Context {
			clientOf(ctx).cut = func() { _ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "") }
			return ctx
		},
	}
	return q
}

// admit counts a connection until it is over.
func (q *quickServer) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	from := addrOf(info.RemoteAddr).Addr()
	if !q.s.clients.take(from) {
		q.s.metrics.refusedConn("too-many-connections")
		return nil, errTooMany
	}
	q.s.metrics.accepted.Inc()
	c := newClient(func() {}) // until there is a connection
	context.AfterFunc(ctx, func() {
		q.s.clients.give(from)
		c.leave()
	})
	return withClient(ctx, c), nil
}

func (q *quickServer) serve() error {
	l := &q.s.cfg.Limits
	ln, err := q.transport.ListenEarly(http3.ConfigureTLSConfig(q.s.tls), &quic.Config{
		MaxIncomingStreams: int64(l.Streams), MaxIdleTimeout: l.Idle, HandshakeIdleTimeout: l.Header,
		Allow0RTT: false, // a request that anybody can send again
	})
	if err != nil {
		return err
	}
	defer q.transport.Close()
	defer ln.Close()
	if err := q.h3.ServeListener(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, quic.ErrServerClosed) {
		return err
	}
	return nil
}

func (q *quickServer) shutdown(ctx context.Context) error {
	if q == nil {
		return nil
	}
	return q.h3.Shutdown(ctx)
}

func (q *quickServer) close() {
	if q != nil {
		_ = q.h3.Close()
	}
}
