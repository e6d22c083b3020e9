// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/cds/api"
)

// session is the TLS connection a call came on.
type session struct {
	tls    *tls.ConnectionState
	remote string
	answer *http.ResponseController // of the call
}

type sessionKey struct{}

func withSession(ctx context.Context, s session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
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

// host is what the caller's limits are counted by.
func (s session) host() string { return hostOf(s.remote) }

// maxCallers bounds the hosts whose calls are counted.
const maxCallers = 16384

// callers limits how fast each remote host may call: a burst when many pods
// start, then a steady rate. A host is an IP address.
type callers struct {
	limits Limits
	now    func() time.Time
	mu     sync.Mutex
	all    map[string]*bucket
	swept  time.Time
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
			c.makeRoom(now)
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

// makeRoom drops hosts that have been quiet long enough to have a full burst,
// and any one where that is nobody: who has that many addresses has that many
// bursts.
func (c *callers) makeRoom(now time.Time) {
	if since := now.Sub(c.swept); since < 0 || since >= sweepEvery {
		c.swept = now
		for host, b := range c.all {
			if now.Sub(b.last).Seconds()*c.limits.CallsPerSecond >= c.limits.CallBurst {
				delete(c.all, host)
			}
		}
	}
	for host := range c.all {
		if len(c.all) < maxCallers {
			return
		}
		delete(c.all, host)
	}
}

// guard turns every error into a code for the caller and a log line for the
// operator.
func (s *Server) guard() connect.Interceptor { return guard{s} }

type guard struct{ s *Server }

func (g guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		resp, err := next(ctx, req)
		g.s.metrics.latency.WithLabelValues(req.Spec().Procedure).Observe(time.Since(began).Seconds())
		return resp, g.conceal(ctx, req.Spec().Procedure, err)
	}
}

func (g guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
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
	g.s.noteRefusal(ctx, procedure, code, err)
	return toCaller(code, err)
}

// noteRefusal counts a refusal and logs it. A flood of calls must not be one of
// log lines: those who are turned away for it are counted alone.
func (s *Server) noteRefusal(ctx context.Context, what, code string, err error) {
	s.metrics.refused.WithLabelValues(code).Inc()
	level := slog.LevelWarn
	if code == codeTooFast || code == codeBusy {
		level = slog.LevelDebug
	}
	s.cfg.Log.Log(ctx, level, "call refused", "call", what, "remote", sessionOf(ctx).remote, "code", code, "err", err)
}
