// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run serves until ctx ends, or a listener fails, and then drains: no new
// connections, no further requests on those there are, and what is under way
// has Limits.Drain to end.
func (s *Server) Run(ctx context.Context) error {
	defer s.end()
	group, ctx := errgroup.WithContext(ctx)
	https, plain := s.httpServer(), s.plainServer()
	for _, ln := range s.cfg.Listen.HTTPS {
		d := tls.NewListener(newDoor(ln, s), s.tls)
		group.Go(func() error { return served(https.Serve(d)) })
	}
	for _, ln := range s.cfg.Listen.HTTP {
		d := newDoor(ln, s)
		group.Go(func() error { return served(plain.Serve(d)) })
	}
	var quick *quickServer
	if s.cfg.Listen.QUIC != nil {
		quick = newQuickServer(s)
		group.Go(quick.serve)
	}
	group.Go(func() error {
		<-ctx.Done()
		s.drain(https, plain, quick)
		return nil
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("serving the ingress: %w", err)
	}
	return nil
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drain waits for what is under way, within the limit, and ends the rest.
func (s *Server) drain(https, plain *http.Server, quick *quickServer) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.Drain)
	defer cancel()
	s.cfg.Log.Info("the ingress is draining", "requests", s.running.count(), "connections", s.clients.now(), "limit", s.cfg.Limits.Drain)
	var group errgroup.Group
	for _, stop := range []func(context.Context) error{https.Shutdown, plain.Shutdown, quick.shutdown} {
		group.Go(func() error { return stop(ctx) })
	}
	group.Go(func() error { // Shutdown does not wait for WebSockets and CONNECT
		select {
		case <-s.running.none():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if group.Wait() != nil {
		s.cfg.Log.Warn("the ingress ends requests that were not done in time", "requests", s.running.count())
	}
	s.end()
	_ = https.Close()
	_ = plain.Close()
	quick.close()
	<-s.running.none()
	s.back.h1.CloseIdleConnections()
	s.back.h2.CloseIdleConnections()
}

func (s *Server) httpServer() *http.Server {
	l := &s.cfg.Limits
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: l.Header,
		IdleTimeout:       l.Idle,
		MaxHeaderBytes:    l.HeaderBytes,
		ErrorLog:          s.errorLog(),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return s.greet(ctx, c) },
		ConnState:         s.connState,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.Streams,
			// A client that is gone without a word is noticed.
			SendPingTimeout: l.Idle, PingTimeout: 15 * time.Second, WriteByteTimeout: l.Stall,
		},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	return srv
}

// greet puts what is known of a connection where its handshake and requests
// find it.
func (s *Server) greet(ctx context.Context, conn net.Conn) context.Context {
	c := newClient(func() { _ = conn.Close() })
	if t, ok := conn.(*tls.Conn); ok {
		if counted, ok := t.NetConn().(*counted); ok {
			counted.client, c.cut = c, func() { _ = counted.Close() } // at once, without a word
		}
	}
	return withClient(ctx, c)
}

func (s *Server) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.metrics.accepted.Inc()
	}
}

// plainServer answers on the port without TLS.
func (s *Server) plainServer() *http.Server {
	l := &s.cfg.Limits
	return &http.Server{
		Handler:           s.cfg.Certs.HTTPHandler(http.HandlerFunc(s.toTLS)),
		ReadHeaderTimeout: l.Header, ReadTimeout: l.Header, WriteTimeout: 2 * l.Header, IdleTimeout: l.Header,
		MaxHeaderBytes: min(l.HeaderBytes, 16<<10),
		ErrorLog:       s.errorLog(),
	}
}

// toTLS sends clients where they are safe. What hosts we do not have is not our
// business to say.
func (s *Server) toTLS(w http.ResponseWriter, r *http.Request) {
	host, _, ok := splitHost(r.Host)
	if _, hosted := s.routes.Load().table.Host(host); !ok || !hosted || r.Method == http.MethodConnect || r.URL.Path == "" || r.URL.Path[0] != '/' {
		fail(http.StatusNotFound, codeHostUnknown, nil).write(w, r)
		return
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusPermanentRedirect)
}

// errorLog takes what net/http says: handshakes that failed, mostly.
func (s *Server) errorLog() *log.Logger { return log.New(serverLog{s}, "", 0) }

type serverLog struct{ s *Server }

func (l serverLog) Write(p []byte) (int, error) {
	l.s.metrics.serverErrors.Inc()
	if l.s.budget.AllowN(l.s.cfg.Now(), 1) {
		l.s.cfg.Log.Log(context.Background(), slog.LevelDebug, "a client's connection failed", "err", string(p[:min(len(p), 512)]))
	}
	return len(p), nil
}

// altSvc is what browsers are told about HTTP/3.
func altSvc(l *Listeners) string {
	if l.QUIC == nil {
		return ""
	}
	port := l.AltPort
	if port == 0 {
		port = addrOf(l.QUIC.LocalAddr()).Port()
	}
	return `h3=":` + strconv.Itoa(int(port)) + `"; ma=86400`
}
