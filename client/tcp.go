// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// DialTCP connects to a TCP service behind the ingress of its host:
// "db.example:5432" is asked for, with CONNECT, at https://db.example. The key is
// proven before; while the connection lives there is nothing to ask on it, so
// that who must not trust an old proof makes a new connection.
func (c *Client) DialTCP(ctx context.Context, target string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w: %w", clip(target), errTarget, err)
	}
	return c.DialTCPVia(ctx, net.JoinHostPort(host, "443"), target)
}

// DialTCPVia is DialTCP for an ingress at another port than 443. The connection
// supports CloseWrite.
func (c *Client) DialTCPVia(ctx context.Context, ingress, target string) (net.Conn, error) {
	host, port, err := splitURL(ingress)
	if err != nil {
		return nil, err
	}
	to, number, err := net.SplitHostPort(target)
	if n, bad := strconv.ParseUint(number, 10, 16); err != nil || bad != nil || n == 0 || !strings.EqualFold(to, host) {
		return nil, fmt.Errorf("connecting to %s through %s: %w of the ingress's host", clip(target), clip(ingress), errTarget)
	}
	o, err := c.originOf(host, port)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Within)
	defer cancel()
	l, err := o.dial(ctx, onlyHTTP1())
	if err != nil {
		return nil, err
	}
	p := l.peer()
	err = o.prove(ctx, p, false)
	if err == nil {
		err = p.rt.(*exchange).tunnel(ctx, net.JoinHostPort(host, number))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &tunnel{line: l, r: p.rt.(*exchange).r}, nil
}

// peer is the line as one that can be asked: one request after the other.
func (l *line) peer() *peer {
	return &peer{
		rt: newExchange(l), base: l.o.base, host: l.o.host, addr: l.RemoteAddr().String(), state: l.state, key: l.key,
	}
}

// maxAnswer bounds a whole answer that is held in memory, in bytes.
const maxAnswer = 32 << 20

// exchange speaks HTTP/1.1 on a line that is to be handed on afterwards, which
// no http.Transport can do.
type exchange struct {
	l     *line
	mu    sync.Mutex
	limit io.LimitedReader // of the line
	r     *bufio.Reader    // of limit
}

func newExchange(l *line) *exchange {
	e := &exchange{l: l}
	e.limit.R = l.Conn
	e.r = bufio.NewReader(&e.limit)
	return e
}

// RoundTrip implements http.RoundTripper. The body is read before it returns.
func (e *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx := req.Context()
	stop := context.AfterFunc(ctx, func() { _ = e.l.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			_ = e.l.SetDeadline(time.Time{})
		}
	}()
	resp, err := e.once(req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return resp, err
}

func (e *exchange) once(req *http.Request) (*http.Response, error) {
	if err := req.Write(e.l.Conn); err != nil {
		return nil, err
	}
	e.limit.N = maxAnswer
	resp, err := http.ReadResponse(e.r, req)
	if err != nil {
		return nil, err
	}
	if req.Method == http.MethodConnect && resp.StatusCode == http.StatusOK {
		e.limit.N = math.MaxInt64 // from here on it is not an answer
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	state := e.l.state
	resp.TLS = &state
	return resp, nil
}

// tunnel asks for the target, after which the line is its.
func (e *exchange) tunnel(ctx context.Context, target string) error {
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{"User-Agent": {"c8s"}}}).WithContext(ctx)
	resp, err := e.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking the ingress for %s: %w", target, err)
	}
	if resp.StatusCode != http.StatusOK {
		word, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return attest.NewFailure(CodeUnavailable, "a TCP service at "+target, resp.Status+": "+strings.TrimSpace(string(word)), "is there a backend of mode tcp for this host and port in the manifest?")
	}
	return nil
}

// tunnel is a proven line that carries a TCP service.
type tunnel struct {
	*line
	r *bufio.Reader // may hold the first bytes
}

func (t *tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }

var _ interface{ CloseWrite() error } = (*tunnel)(nil)
