// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/c8s-dev/c8s/policy"
)

// connect answers CONNECT (RFC 9110 section 9.3.6) with a connection to a
// backend of mode tcp.
func (s *Server) connect(x *exchange, port uint16) *failure {
	routes := s.routes.Load()
	name, hosted := routes.table.Host(x.host)
	if !hosted {
		return fail(http.StatusNotFound, codeHostUnknown, nil)
	}
	to := routes.table.TCP(x.host, port)
	if to == nil || x.in.ProtoMajor == 1 && x.in.ContentLength != 0 || isExtended(x.in) {
		return fail(http.StatusNotFound, codeNoRoute, nil)
	}
	x.found.Source, x.found.Host = to.Source, name
	stream := x.in.Body
	if why := s.admit(x, routes.hosts[name]); why != nil {
		return why
	}
	x.in.Body = stream // it is no body: neither its size nor its pauses are limited
	x.backend = to.Pick(s.cfg.Rand())
	if x.backend == nil || x.backend.Refuse != "" {
		return fail(http.StatusInternalServerError, codeNoBackend, nil)
	}
	conn, why := s.back.open(x)
	if why != nil {
		return why
	}
	defer conn.Close()
	stop := context.AfterFunc(x.in.Context(), func() { _ = conn.Reset() })
	defer stop()
	x.w.Header().Del("Alt-Svc")
	s.fields(x.attempt).Set(x.w.Header())
	if x.in.ProtoMajor == 1 {
		return s.carryConn(x, conn)
	}
	return carryStream(x, conn)
}

// isExtended: RFC 8441 and RFC 9220 make other things of CONNECT. net/http has
// the protocol in the header, quic-go in place of the version.
func isExtended(r *http.Request) bool {
	return r.Header.Get(":protocol") != "" || r.ProtoMajor == 3 && r.Proto != "HTTP/3.0"
}

// open connects to an endpoint, or to another one where that fails.
func (b *backends) open(x *exchange) (*backendConn, *failure) {
	var tried []netip.Addr
	var last *failure
	for x.tries < maxTries {
		to, err := b.choose(x.backend, tried)
		if err != nil && last == nil {
			last = fail(http.StatusServiceUnavailable, codeNoEndpoints, err)
		}
		if err != nil {
			return nil, last
		}
		x.tries++
		x.attempt = &attempt{x: x, to: to}
		conn, err := b.connect(x.in.Context(), x.host, "", policy.ModeTCP, to)
		if err == nil {
			b.health.well(to.Pod)
			x.attempt.conn = conn
			x.attempt.manifest, _ = b.allowed(x.host, conn.said.workload, policy.ModeTCP, to.Pod.Port())
			return conn, nil
		}
		last = ofDial(err)
		if !elsewhere(err) || x.in.Context().Err() != nil {
			break
		}
		b.health.failed(to.Pod)
		tried = append(tried, to.Pod.Addr())
	}
	return nil, last
}

// carryConn carries bytes of an HTTP/1.1 connection.
func (s *Server) carryConn(x *exchange, conn *backendConn) *failure {
	head := "HTTP/1.1 200 OK\r\n"
	for name, values := range x.w.Header() {
		for _, v := range values {
			head += name + ": " + v + "\r\n"
		}
	}
	client, buf, err := x.w.Hijack()
	if err != nil {
		return fail(http.StatusInternalServerError, codeInternal, err)
	}
	defer client.Close()
	stop := context.AfterFunc(x.in.Context(), func() { cutOff(client) })
	defer stop()
	x.w.status = http.StatusOK
	if _, err := io.WriteString(client, head+"\r\n"); err != nil {
		return nil
	}
	in := struct {
		io.Reader
		io.Closer
	}{lastWord{buffered(buf.Reader, client), client}, cutter{client}}
	x.w.bytes, _ = exchangeBytes(in, halfCloser(client), conn)
	return nil
}

// lastWord wants the alert that ends TLS in order (RFC 8446 section 6.1), which
// crypto/tls does not: anybody on the way can end TCP.
type lastWord struct {
	io.Reader
	client net.Conn
}

func (l lastWord) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if t, ok := l.client.(*tls.Conn); ok && err == io.EOF {
		if c, ok := t.NetConn().(*counted); !ok || c.fin.Load() {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// cutter ends a connection by cutting it off.
type cutter struct{ net.Conn }

func (c cutter) Close() error {
	cutOff(c.Conn)
	return nil
}

// buffered reads what came with the request first.
func buffered(r *bufio.Reader, conn net.Conn) io.Reader {
	if n := r.Buffered(); n > 0 {
		head, _ := r.Peek(n)
		return io.MultiReader(bytes.NewReader(head), conn)
	}
	return conn
}

// cutOff ends a connection so that what came does not look complete: with a
// reset, and without the alert that ends TLS.
func cutOff(client net.Conn) {
	raw := client
	for {
		if t, ok := raw.(*tls.Conn); ok {
			raw = t.NetConn()
			continue
		}
		c, ok := raw.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		raw = c.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = raw.Close()
}

// carryStream carries bytes of a stream of HTTP/2 or HTTP/3.
func carryStream(x *exchange, conn *backendConn) *failure {
	x.w.WriteHeader(http.StatusOK)
	if err := x.w.FlushError(); err != nil {
		return nil
	}
	if _, err := exchangeBytes(x.in.Body, flushed{x.w}, conn); err != nil {
		panic(http.ErrAbortHandler) // a reset of the stream
	}
	return nil
}

// flushed sends each piece at once. The end of the stream is the handler's.
type flushed struct{ w *writer }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.w.FlushError()
	}
	return n, err
}

func (flushed) CloseWrite() error { return nil }

type closeWriter interface {
	io.Writer
	CloseWrite() error
}

func halfCloser(c net.Conn) closeWriter {
	if h, ok := c.(closeWriter); ok {
		return h
	}
	return noHalf{c}
}

type noHalf struct{ net.Conn }

func (noHalf) CloseWrite() error { return nil }

// exchangeBytes copies both ways until both are at their end. It returns what
// went to the client, and why that broke off; in is closed then.
func exchangeBytes(in io.ReadCloser, out closeWriter, conn *backendConn) (n int64, err error) {
	var up sync.WaitGroup
	up.Go(func() {
		if _, err := io.Copy(conn, in); err != nil {
			_ = conn.Reset() // the client broke off, and so is what the backend has
			return
		}
		_ = conn.CloseWrite()
	})
	n, err = io.Copy(out, conn)
	if err == nil {
		err = out.CloseWrite()
	}
	if err != nil {
		_ = in.Close()
	}
	up.Wait()
	return n, err
}
