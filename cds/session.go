// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/cds/api"
)

// session is the TLS connection a call came on.
type session struct {
	tls    *tls.ConnectionState
	remote string
}

type sessionKey struct{}

func withSession(ctx context.Context, cs *tls.ConnectionState, remote string) context.Context {
	return context.WithValue(ctx, sessionKey{}, session{cs, remote})
}

func sessionOf(ctx context.Context) session {
	s, _ := ctx.Value(sessionKey{}).(session)
	return s
}

// id names the TLS session: nobody else has its exporter.
func (s session) id() ([sha256.Size]byte, error) {
	ekm, err := api.Exporter(s.tls, []byte("session"))
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(ekm), nil
}

// host is the caller's address without the port: what limits are counted by.
func (s session) host() string {
	host, _, err := net.SplitHostPort(s.remote)
	if err != nil {
		return s.remote
	}
	return host
}

// maxCallers bounds the hosts whose calls are counted.
const maxCallers = 16384

// callers limits how fast each remote host may call: a burst when many pods
// start, then a steady rate. A host is an IP address.
type callers struct {
	limits Limits
	now    func() time.Time
	mu     sync.Mutex
	all    map[string]*bucket
}

type bucket struct {
	tokens float64
	last   time.Time
}

func newCallers(limits Limits) *callers {
	return &callers{limits: limits, now: time.Now, all: map[string]*bucket{}}
}

// allow takes one call from the host's bucket, or says when there is one.
func (c *callers) allow(host string) error {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.all[host]
	if b == nil {
		if len(c.all) >= maxCallers {
			c.forget(now)
		}
		b = &bucket{tokens: c.limits.CallBurst, last: now}
		c.all[host] = b
	}
	b.tokens = min(c.limits.CallBurst, b.tokens+max(0, now.Sub(b.last).Seconds())*c.limits.CallsPerSecond)
	b.last = now
	if b.tokens < 1 {
		return &refusal{
			code: codeTooFast, detail: fmt.Sprintf("more than %g calls per second", c.limits.CallsPerSecond),
			retryAfter: retryAtLeast + rand.N(retrySpread),
		}
	}
	b.tokens--
	return nil
}

// forget drops hosts that have been quiet long enough to have a full burst.
func (c *callers) forget(now time.Time) {
	for host, b := range c.all {
		if now.Sub(b.last).Seconds()*c.limits.CallsPerSecond >= c.limits.CallBurst {
			delete(c.all, host)
		}
	}
}

// guard turns every error into a code for the caller and a log line for the
// operator, and applies the per-host rate.
func (s *Server) guard() connect.Interceptor { return guard{s} }

type guard struct{ s *Server }

func (g guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		var resp connect.AnyResponse
		err := g.s.callers.allow(sessionOf(ctx).host())
		if err == nil {
			resp, err = next(ctx, req)
		}
		g.s.metrics.latency.WithLabelValues(req.Spec().Procedure).Observe(time.Since(began).Seconds())
		return resp, g.conceal(ctx, req.Spec().Procedure, err)
	}
}

func (g guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := g.s.callers.allow(sessionOf(ctx).host()); err != nil {
			return g.conceal(ctx, conn.Spec().Procedure, err)
		}
		return g.conceal(ctx, conn.Spec().Procedure, next(ctx, conn))
	}
}

func (g guard) conceal(ctx context.Context, procedure string, err error) error {
	if err == nil {
		return nil
	}
	code := codeOf(err)
	// A caller that went away is no refusal. One that was refused while its
	// deadline ran out is: it learns no more, and is counted all the same.
	if code == codeInternal && ctx.Err() != nil {
		return ctx.Err()
	}
	var malformed *connect.Error
	if code == codeInternal && errors.As(err, &malformed) {
		code = codeMalformed
	}
	g.s.metrics.refused.WithLabelValues(code).Inc()
	g.s.cfg.Log.Warn("call refused", "call", procedure, "remote", sessionOf(ctx).remote, "code", code, "err", err)
	return toCaller(code, err)
}
