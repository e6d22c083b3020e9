// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/c8s-dev/c8s/ingress/route"
)

// exchange is one request and what becomes of it.
type exchange struct {
	in      *http.Request
	host    string // lower case, without port and final dot
	from    netip.AddrPort
	found   route.Found
	backend *route.Backend
	w       *writer
	body    *reader // nil: none
	guard   *guard
	cancel  context.CancelCauseFunc
	attempt *attempt // the last one
	tries   int
	failure *failure // what the client got instead of an answer
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ServeHTTP answers what comes over TLS.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.running.begin()
	defer s.running.finish()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stop := context.AfterFunc(s.life, func() { cancel(fail(http.StatusServiceUnavailable, codeDraining, nil)) })
	defer stop()

	x := &exchange{from: parseAddr(r.RemoteAddr), cancel: cancel}
	x.guard = newGuard(s.cfg.Limits.Stall, w, cancel)
	defer x.guard.stop()
	x.w = &writer{ResponseWriter: w, guard: x.guard}
	x.in = r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	began := s.cfg.Now()
	s.metrics.inFlight.Inc()
	defer func() {
		aborted := recover()
		s.metrics.inFlight.Dec()
		s.done(x, began, aborted != nil)
		if aborted != nil {
			panic(aborted) // net/http resets the stream or connection
		}
	}()
	if why := s.answer(x); why != nil {
		s.refuse(x, why)
	}
}

// answer returns why there is no answer of a backend or of our own.
func (s *Server) answer(x *exchange) *failure {
	r := x.in
	if s.altSvc != "" && r.ProtoMajor < 3 {
		x.w.Header().Set("Alt-Svc", s.altSvc)
	}
	host, port, ok := splitHost(r.Host)
	if !ok {
		return fail(http.StatusBadRequest, codeBadRequest, errors.New("the request names no valid host"))
	}
	x.host = host
	if r.TLS != nil && r.TLS.NegotiatedProtocol == "acme-tls/1" {
		return fail(http.StatusMisdirectedRequest, codeMisdirected, errors.New("the connection is for a challenge of ACME"))
	}
	own := r.Method != http.MethodConnect && isOwn(r.URL.Path)
	if why := misdirected(r, host, own); why != nil {
		return why
	}
	switch {
	case own:
		s.own(x)
		return nil
	case r.Method == http.MethodConnect:
		return s.connect(x, port)
	}
	return s.forward(x)
}

func (s *Server) own(x *exchange) {
	if l := s.cfg.Limits; x.in.Body != nil {
		x.in.Body = http.MaxBytesReader(x.w, x.in.Body, min(l.BodyBytes, 1<<20))
	}
	s.cfg.Own.ServeHTTP(x.w, x.in)
}

// isOwn: everything that begins so is ours, never a backend's.
func isOwn(path string) bool { return strings.HasPrefix(path, ownPath) }

// misdirected wants the host that the TLS handshake named: certificates and
// limits of one host must not be used for another. Without a name in the
// handshake there is only what the ingress says of itself.
func misdirected(r *http.Request, host string, own bool) *failure {
	if r.TLS == nil {
		return fail(http.StatusMisdirectedRequest, codeMisdirected, errors.New("the connection has no TLS"))
	}
	sni := strings.ToLower(r.TLS.ServerName)
	if sni == host || sni == "" && own {
		return nil
	}
	return fail(http.StatusMisdirectedRequest, codeMisdirected, errors.New("the handshake was for "+strconv.Quote(sni)))
}

// forward finds the rule and follows it.
func (s *Server) forward(x *exchange) *failure {
	r, routes := x.in, s.routes.Load()
	name, hosted := routes.table.Host(x.host)
	if !hosted {
		return fail(http.StatusNotFound, codeHostUnknown, nil)
	}
	switch {
	case r.Method == http.MethodTrace:
		return fail(http.StatusMethodNotAllowed, codeMethod, nil)
	case !strings.HasPrefix(r.URL.Path, "/") || r.URL.Opaque != "" || r.URL.User != nil || route.HasDots(r.URL.Path):
		return fail(http.StatusBadRequest, codeBadRequest, errors.New("the path has dot segments or is none"))
	case r.ProtoMajor > 1 && r.URL.Host != "": // RFC 9113 section 8.3.1: it has no authority
		return fail(http.StatusBadRequest, codeBadRequest, errors.New("the path names a host"))
	}
	state := routes.hosts[name]
	if why := s.admit(x, state); why != nil {
		return why
	}
	x.found, _ = routes.table.Lookup(&route.Request{Host: x.host, Path: r.URL.Path, Method: r.Method, Header: r.Header, Query: r.URL.RawQuery})
	rule := x.found.Rule
	if rule == nil {
		return fail(http.StatusNotFound, codeNoRoute, nil)
	}
	if rule.Redirect != nil {
		redirect(x, rule.Redirect)
		return nil
	}
	x.backend = rule.Pick(s.cfg.Rand())
	if x.backend == nil || x.backend.Refuse != "" {
		why := errors.New("all backends have weight 0")
		if x.backend != nil {
			why = errors.New(x.backend.Refuse)
		}
		return fail(http.StatusInternalServerError, codeNoBackend, why)
	}
	s.send(x)
	return nil
}

// admit holds the host's limits.
func (s *Server) admit(x *exchange, state *hostState) *failure {
	headers, body := s.cfg.Limits.HeaderBytes, s.cfg.Limits.BodyBytes
	if state != nil {
		l := &state.limits
		if l.HeaderBytes > 0 {
			headers = min(headers, l.HeaderBytes)
		}
		if l.BodyBytes > 0 {
			body = l.BodyBytes
		}
		if !clientOf(x.in.Context()).holds(state) {
			return fail(http.StatusServiceUnavailable, codeConnections, nil)
		}
		if state.bucket != nil && !state.bucket.AllowN(s.cfg.Now(), 1) {
			return fail(http.StatusTooManyRequests, codeRate, nil)
		}
	}
	if headerSize(x.in) > headers {
		return fail(http.StatusRequestHeaderFieldsTooLarge, codeHeaderLarge, nil)
	}
	if x.in.ContentLength > body {
		return fail(http.StatusRequestEntityTooLarge, codeTooLarge, nil)
	}
	if x.in.Body != nil && x.in.Body != http.NoBody {
		x.body = &reader{ReadCloser: x.in.Body, left: body, guard: x.guard, patient: route.IsGRPC(x.in.Header), trailer: x.in.Trailer}
		x.in.Body = x.body
	}
	return nil
}

func headerSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	return n
}

// send has the request answered by a backend. What was upgraded has no end that
// a timeout could wait for.
func (s *Server) send(x *exchange) {
	onlyWebSocket(x)
	if t := x.found.Rule.Timeouts.Request; t > 0 && len(x.in.Header["Upgrade"]) == 0 {
		defer time.AfterFunc(t, func() { x.cancel(fail(http.StatusGatewayTimeout, codeTimeout, nil)) }).Stop()
	}
	s.proxy.ServeHTTP(x.w, x.in)
}

// onlyWebSocket takes other upgrades away: what a backend would make of h2c,
// say, escapes every check of ours. RFC 9110 section 7.8 lets a server ignore
// an upgrade.
func onlyWebSocket(x *exchange) {
	h := x.in.Header
	h.Del("Http2-Settings")
	up := h["Upgrade"]
	if len(up) == 0 {
		return
	}
	if len(up) == 1 && strings.EqualFold(up[0], "websocket") && x.in.Method == http.MethodGet && x.in.ProtoMajor == 1 && x.in.ProtoMinor == 1 &&
		x.in.ContentLength == 0 && x.backend.Protocol == route.HTTP && httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") {
		return
	}
	h.Del("Upgrade")
}

// refuse answers with why, and says it in the log.
func (s *Server) refuse(x *exchange, why *failure) {
	x.failure = why
	s.complain(x, why)
	switch {
	case x.w.status != 0 || x.w.hijacked: // too late for another answer
		panic(http.ErrAbortHandler)
	case why.status == statusClientGone:
		x.w.status = statusClientGone
		panic(http.ErrAbortHandler)
	}
	if x.in.ProtoMajor == 1 && x.in.ContentLength != 0 {
		x.w.Header().Set("Connection", "close") // what is left of the body is not worth reading
	}
	why.write(x.w, x.in)
}

// holds counts the connection for a host, once.
func (c *client) holds(h *hostState) bool {
	if c == nil || h.limits.Connections == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, have := range c.held {
		if have.conns == h.conns {
			return true
		}
	}
	if c.gone || h.conns.Add(1) > int64(h.limits.Connections) {
		if !c.gone {
			h.conns.Add(-1)
		}
		return false
	}
	c.held = append(c.held, h)
	return true
}

// leave is called when the connection is over.
func (c *client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, h := range c.held {
		h.conns.Add(-1)
	}
	c.held = nil
}

// splitHost reads the Host header or :authority.
func splitHost(s string) (host string, port uint16, ok bool) {
	if s == "" || len(s) > 300 {
		return "", 0, false
	}
	host = s
	if colon := strings.LastIndexByte(s, ':'); colon >= 0 && !strings.HasSuffix(s, "]") {
		n, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil {
			return "", 0, false
		}
		host, port = s[:colon], uint16(n)
	}
	if a, bracketed := strings.CutPrefix(host, "["); bracketed {
		a, bracketed = strings.CutSuffix(a, "]")
		addr, err := netip.ParseAddr(a)
		return host, port, bracketed && err == nil && addr.Is6() && addr.Zone() == ""
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" {
		return "", 0, false
	}
	lower := false
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		case c >= 'A' && c <= 'Z':
			lower = true
		default:
			return "", 0, false
		}
	}
	if lower {
		host = strings.ToLower(host)
	}
	return host, port, true
}

func parseAddr(s string) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// done records a request that is over.
func (s *Server) done(x *exchange, began time.Time, aborted bool) {
	took := s.cfg.Now().Sub(began)
	status := x.w.status
	if status == 0 && !x.w.hijacked {
		status = http.StatusOK
	}
	code := ""
	if x.failure != nil {
		code = x.failure.code
	} else if aborted {
		code = codeBackendBroke
		if x.in.Context().Err() != nil {
			code = codeClientGone
			var why *failure
			if errors.As(context.Cause(x.in.Context()), &why) {
				code = why.code
			}
		}
	}
	s.metrics.request(status, code, took)
	if c := clientOf(x.in.Context()); code == codeClientGone && c != nil && !c.resets.AllowN(s.cfg.Now(), 1) {
		s.metrics.refusedConn("too-many-resets")
		c.cut()
	}
	if s.cfg.Access == nil {
		return
	}
	r := x.in
	attrs := []slog.Attr{
		slog.String("client", x.from.String()), slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.URL.Path),
		slog.String("proto", r.Proto), slog.Int("status", status), slog.Int64("bytes", x.w.bytes), slog.Duration("took", took),
	}
	if x.found.Source != "" {
		attrs = append(attrs, slog.String("route", x.found.Source))
	}
	if a := x.attempt; a != nil && a.conn != nil {
		attrs = append(attrs, slog.String("workload", a.conn.said.workload), slog.String("pod", a.to.Pod.String()), slog.Int("tries", x.tries))
	}
	if code != "" {
		attrs = append(attrs, slog.String("code", code))
	}
	s.cfg.Access.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}
