// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// maxTries is how many endpoints one request may be sent to.
const maxTries = 3

// backends sends requests into the mesh. Each request chooses an endpoint;
// connections are kept for later requests of the same host to the same
// endpoint.
type backends struct {
	s      *Server
	h1, h2 *http.Transport
	health *health
	probes *probes
}

func newBackends(s *Server) *backends {
	b := &backends{s: s, health: newHealth(s.cfg.Now)}
	b.h1, b.h2 = b.transport(), b.transport()
	b.h1.Protocols, b.h2.Protocols = new(http.Protocols), new(http.Protocols)
	b.h1.Protocols.SetHTTP1(true)
	b.h2.Protocols.SetUnencryptedHTTP2(true)
	b.h2.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, StrictMaxConcurrentRequests: false}
	b.probes = newProbes(b)
	return b
}

func (b *backends) transport() *http.Transport {
	l := &b.s.cfg.Limits
	return &http.Transport{
		DialContext:            b.dial,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConns:           16 * l.IdleBackend,
		MaxIdleConnsPerHost:    l.IdleBackend,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
}

// attempt is one endpoint tried for one request.
type attempt struct {
	x        *exchange
	to       resolve.Target
	key      string       // of connections that may carry it
	conn     *backendConn // that carried it, or would have
	manifest uint64       // version that allowed it
	dialling atomic.Bool  // a connection was asked for and none was had
	refused  error        // why the connection may not carry it
}

type attemptKey struct{}

// RoundTrip implements http.RoundTripper: it finds an endpoint that answers.
// Another one is tried where nothing of the request can have been seen: no
// connection came about, or it broke off without an answer to a request that
// may be repeated.
func (b *backends) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req.Context())
	body := &sharedBody{rc: req.Body}
	var tried []netip.Addr
	var last error
	for x.tries < maxTries {
		to, err := b.choose(x.backend, tried)
		if err != nil {
			if last != nil { // what failed says more than that nobody is left
				return nil, last
			}
			return nil, fail(http.StatusServiceUnavailable, codeNoEndpoints, err)
		}
		x.tries++
		a := &attempt{x: x, to: to, key: poolKey(x, to.Pod)}
		x.attempt = a
		res, err := b.try(req, a, body)
		if err == nil {
			b.health.well(to.Pod)
			return res, nil
		}
		var again bool
		if last, again = b.judge(a, req, body, err); !again {
			return nil, last
		}
		b.s.metrics.retries.Inc()
		tried = append(tried, to.Pod.Addr())
	}
	return nil, last
}

// choose passes over endpoints that failed lately, unless all did.
func (b *backends) choose(to *route.Backend, tried []netip.Addr) (resolve.Target, error) {
	if sick := b.health.avoid(); len(sick) > 0 {
		if t, err := b.s.cfg.Resolve(to.Service, to.Port, slices.Concat(sick, tried)); err == nil {
			return t, nil
		}
	}
	return b.s.cfg.Resolve(to.Service, to.Port, tried)
}

// poolKey has everything that a connection was judged by, written as a host
// name, because http.Transport keeps connections by it. None of the parts but
// the host can have '_', so that no two keys are alike.
func poolKey(x *exchange, pod netip.AddrPort) string {
	b := append(make([]byte, 0, 128), x.host...)
	b = appendReplaced(append(b, '_'), x.backend.Service, '/', '_')
	if b = append(b, '_'); x.backend.Port.Name != "" {
		b = append(b, x.backend.Port.Name...)
	} else {
		b = strconv.AppendUint(b, uint64(x.backend.Port.Number), 10)
	}
	b = appendReplaced(append(b, '_'), pod.Addr().String(), ':', '-')
	return string(strconv.AppendUint(append(b, '_'), uint64(pod.Port()), 10))
}

func appendReplaced(b []byte, s string, from, to byte) []byte {
	for i := range len(s) {
		if c := s[i]; c != from {
			b = append(b, c)
		} else {
			b = append(b, to)
		}
	}
	return b
}

func (b *backends) try(req *http.Request, a *attempt, body *sharedBody) (*http.Response, error) {
	ctx := context.WithValue(req.Context(), attemptKey{}, a)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { a.dialling.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) { b.got(a, info) },
	})
	if t := a.x.found.Rule.Timeouts.Backend; t > 0 {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer time.AfterFunc(t, func() { cancel(fail(http.StatusGatewayTimeout, codeTimeout, nil)) }).Stop() // the body may take longer
	}
	out := req.WithContext(ctx)
	u := *req.URL
	u.Host = a.key
	out.URL = &u
	if req.Body != nil {
		out.Body = body.lend()
	}
	transport := b.h1
	if a.x.backend.Protocol == route.H2C {
		transport = b.h2
	}
	res, err := transport.RoundTrip(out)
	if err != nil {
		var why *failure
		if ctx.Err() != nil && req.Context().Err() == nil && errors.As(context.Cause(ctx), &why) {
			err = why
		}
		return nil, err
	}
	res.Request = req
	return res, nil
}

// got judges the connection that is about to carry a request, again if it is
// not new: the manifest may be another one by now. A refused connection carries
// nothing any more.
func (b *backends) got(a *attempt, info httptrace.GotConnInfo) {
	a.dialling.Store(false)
	c, ok := info.Conn.(*backendConn)
	if !ok {
		a.refused = errors.New("sending a request: the connection is none into the mesh") // and nothing was judged
		_ = info.Conn.Close()
		return
	}
	a.conn = c
	version, decision := b.allowed(a.x.host, c.said.workload, policy.ModeHTTP, a.to.Pod.Port())
	if a.refused = decision.Err(); c.key != a.key {
		a.refused = errors.New("sending a request: the connection is for something else")
	}
	if a.refused != nil {
		c.refuse(a.refused)
		return
	}
	a.manifest = version
}

// allowed asks the manifest in force.
func (b *backends) allowed(host, workload, mode string, port uint16) (uint64, policy.Decision) {
	signed := b.s.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return 0, policy.Decision{Code: "no-manifest", Rule: "manifest", Expected: "a signed manifest", Actual: "none"}
	}
	return signed.Manifest.Version, signed.Manifest.IngressAllowed(host, workload, mode, port)
}

// judge says what an attempt's failure means, and whether another endpoint is
// worth a try.
func (b *backends) judge(a *attempt, req *http.Request, body *sharedBody, err error) (last error, again bool) {
	var why *failure
	switch {
	case req.Context().Err() != nil:
		return err, false
	case a.x.body.spoilt(): // nothing that a pod could do better
		return err, false
	case a.refused != nil:
		return ofDial(a.refused), !body.used.Load()
	case errors.As(err, &why): // the attempt's timeout
		b.health.failed(a.to.Pod)
		return err, false
	case a.dialling.Load():
		b.s.metrics.dials.WithLabelValues("failed").Inc()
		again = elsewhere(err)
		if again {
			b.health.failed(a.to.Pod)
		}
		return ofDial(err), again && !body.used.Load()
	}
	b.health.failed(a.to.Pod)
	return fail(http.StatusBadGateway, codeBackendBroke, err), repeatable(req)
}

func elsewhere(err error) bool {
	var e interface{ Elsewhere() bool }
	return !errors.As(err, &e) || e.Elsewhere()
}

// repeatable: without effect (RFC 9110 section 9.2.1) and without a body.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.Body == nil && r.Header.Get("Upgrade") == ""
	}
	return false
}

// dial makes a connection for the attempt in ctx, and for no other key.
func (b *backends) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok || addr != a.key+":80" {
		return nil, errors.New("connecting into the mesh: nobody asked for it")
	}
	return b.connect(ctx, a.x.host, a.key, policy.ModeHTTP, a.to)
}

func (b *backends) connect(ctx context.Context, host, key, mode string, to resolve.Target) (*backendConn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.s.cfg.Limits.Dial)
	defer cancel()
	conn, err := b.s.cfg.Mesh.Dial(ctx, to, func(workload string) policy.Decision {
		_, d := b.allowed(host, workload, mode, to.Pod.Port())
		return d
	})
	if err != nil {
		return nil, err
	}
	b.s.metrics.dials.WithLabelValues("made").Inc()
	return newBackendConn(conn, key)
}

// sharedBody is a request's body, lent to one attempt after the other.
type sharedBody struct {
	rc   io.ReadCloser
	used atomic.Bool // somebody began to read
}

func (s *sharedBody) lend() io.ReadCloser { return &lentBody{body: s} }

type lentBody struct {
	body  *sharedBody
	ended atomic.Bool
}

func (l *lentBody) Read(p []byte) (int, error) {
	if l.ended.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	l.body.used.Store(true)
	return l.body.rc.Read(p)
}

// Close ends the lending only: the body is the server's.
func (l *lentBody) Close() error {
	l.ended.Store(true)
	return nil
}
