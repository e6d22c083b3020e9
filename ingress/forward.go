// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

// newProxy makes the handler that forwards what is in a request's exchange.
func (s *Server) newProxy() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        s.rewrite,
		Transport:      s.back,
		ModifyResponse: s.label,
		BufferPool:     newBuffers(),
		ErrorLog:       log.New(discard{}, "", 0), // what fails has an exchange, and is said there
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			x := exchangeOf(r.Context())
			s.refuse(x, s.reason(x, err))
		},
	}
}

const copyBuffer = 32 << 10

// buffers are for copying bodies.
type buffers struct{ sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([copyBuffer]byte) }}}
}

func (b *buffers) Get() []byte  { return b.Pool.Get().(*[copyBuffer]byte)[:] }
func (b *buffers) Put(p []byte) { b.Pool.Put((*[copyBuffer]byte)(p)) }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// rewrite makes what the backend gets.
func (s *Server) rewrite(pr *httputil.ProxyRequest) {
	x, out := exchangeOf(pr.In.Context()), pr.Out
	out.URL.Scheme = "http"
	out.URL.RawQuery = pr.In.URL.RawQuery // as it came: what it means is the backend's business
	out.Host = pr.In.Host
	out.Trailer = pr.In.Trailer // filled when the body has been read
	onlyOthers(out.Trailer)     // what is announced
	s.introduce(pr.In, out.Header, x.from.Addr())
	rule := x.found.Rule
	if w := rule.Rewrite; w != nil {
		if w.Host != "" {
			out.Host = w.Host
		}
		changePath(out.URL, w.Path, &x.found)
	}
	applyHeaders(out.Header, rule.Request)
	applyHeaders(out.Header, x.backend.Request)
}

// label says who answered. What the backend says under these names is removed:
// it would be a claim, and this is a fact.
func (s *Server) label(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	a := x.attempt
	if a == nil || a.conn == nil {
		return errors.New("an answer came over a connection that nobody knows")
	}
	h := res.Header
	delete(h, "Alt-Svc") // leads elsewhere
	if s.altSvc != "" {
		x.w.Header().Del("Alt-Svc")
		if x.in.ProtoMajor < 3 {
			h.Set("Alt-Svc", s.altSvc)
		}
	}
	receipt.Remove(res.Trailer) // what is announced
	if res.ContentLength < 0 || res.ProtoMajor > 1 {
		if res.StatusCode != http.StatusSwitchingProtocols {
			res.Body = &trailed{res.Body, res}
		}
	}
	applyHeaders(h, x.found.Rule.Response)
	applyHeaders(h, x.backend.Response)
	s.fields(a).Set(h)
	if s.cfg.Receipts != nil {
		s.cfg.Receipts.Sign(h, res.StatusCode, x.in)
	}
	return nil
}

// trailed takes our names out of trailers, which are there when the body is not
// any more.
type trailed struct {
	io.ReadCloser
	res *http.Response
}

func (t *trailed) Close() error {
	err := t.ReadCloser.Close()
	receipt.Remove(t.res.Trailer)
	return err
}

// fields are what the ingress says about who answered the attempt.
func (s *Server) fields(a *attempt) receipt.Fields {
	f := receipt.Fields{Workload: a.conn.said.workload, Manifest: a.manifest, Evidence: a.conn.said.evidence}
	if index, ok := s.logs.get(a.conn.said.leaf); ok {
		f.Log = index
	}
	return f
}

// reason finds out why a request was not answered.
func (s *Server) reason(x *exchange, err error) *failure {
	ctx := x.in.Context()
	var f *failure
	switch {
	case x.body != nil && x.body.over.Load():
		return fail(http.StatusRequestEntityTooLarge, codeTooLarge, nil)
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &f):
		return f
	case ctx.Err() != nil:
		return fail(statusClientGone, codeClientGone, nil)
	case x.body.spoilt() && (x.in.ProtoMajor > 1 || errors.Is(err, io.ErrUnexpectedEOF)): // a reset, or the end
		return fail(statusClientGone, codeClientGone, nil)
	case x.body.spoilt():
		return fail(http.StatusBadRequest, codeBadRequest, err)
	case errors.As(err, &f):
		return f
	}
	return fail(http.StatusBadGateway, codeBackendBroke, err)
}

// ofDial makes a failure of why no connection came about. Refusals keep their
// own code: clients may know that much.
func ofDial(err error) *failure {
	var r *datapath.Refusal
	var d policy.Decision
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &r):
		return fail(http.StatusBadGateway, string(r.Code), err)
	case errors.As(err, &d) && d.Code != "":
		return fail(http.StatusBadGateway, string(d.Code), err)
	case errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusGatewayTimeout, codeTimeout, err)
	}
	return fail(http.StatusBadGateway, codeBackendDown, err)
}

// complain tells the operator what went wrong, and for whom. A flood of
// requests must not become a flood of records.
func (s *Server) complain(x *exchange, why *failure) {
	level := slog.LevelWarn
	if why.status < 500 {
		level = slog.LevelDebug // the client's doing
	}
	if !s.cfg.Log.Enabled(x.in.Context(), level) || !s.budget.AllowN(s.cfg.Now(), 1) {
		return
	}
	attrs := []slog.Attr{
		slog.String("code", why.code), slog.String("host", x.host), slog.String("path", x.in.URL.Path), slog.String("client", x.from.String()),
	}
	if x.found.Source != "" {
		attrs = append(attrs, slog.String("route", x.found.Source))
	}
	if x.backend != nil {
		attrs = append(attrs, slog.String("service", x.backend.Service), slog.String("port", x.backend.Port.String()), slog.Int("tries", x.tries))
	}
	if x.attempt != nil {
		attrs = append(attrs, slog.String("pod", x.attempt.to.Pod.String()), slog.String("node", x.attempt.to.Node.String()))
	}
	if why.cause != nil {
		attrs = append(attrs, slog.Any("err", why.cause))
		attrs = append(attrs, explain(why.cause)...)
	}
	s.cfg.Log.LogAttrs(x.in.Context(), level, "a request was not answered", attrs...)
}

// explain has the parts of a refusal by name.
func explain(err error) []slog.Attr {
	var r *datapath.Refusal
	var d policy.Decision
	if errors.As(err, &r) {
		d = r.Decision
	} else if !errors.As(err, &d) {
		return nil
	}
	var attrs []slog.Attr
	for _, part := range [][2]string{{"rule", d.Rule}, {"expected", d.Expected}, {"actual", d.Actual}, {"remedy", d.Remedy}} {
		if part[1] != "" {
			attrs = append(attrs, slog.String(part[0], part[1]))
		}
	}
	return attrs
}

// Records of failures come at this rate at most; all are counted.
const (
	recordsPerSecond = 20
	recordsBurst     = 200
)

// logTimeout bounds one question about the log.
const logTimeout = 10 * time.Second
