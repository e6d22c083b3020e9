// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/ratls/ratlstest"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const podPort = 8080

// world is an ingress with doubles for what it stands on.
type world struct {
	testing.TB
	mesh    *mesh
	certs   *certs
	server  *Server
	https   *net.TCPListener
	plain   *net.TCPListener
	records *records
	stop    func() // drains, and waits for the end
}

// mesh is a mesh whose pods are listeners of this machine.
type mesh struct {
	ca       *ratlstest.CA
	manifest atomic.Pointer[policy.Signed]

	mu       sync.Mutex
	pods     map[netip.AddrPort]*pod
	services map[string][]netip.AddrPort // in the order they are tried
	dials    int
	open     map[*meshConn]bool
}

type pod struct {
	peer *ratls.Peer
	dial func() (net.Conn, error)
}

type meshConn struct {
	net.Conn
	m    *mesh
	peer *ratls.Peer
}

func (c *meshConn) Peer() *ratls.Peer { return c.peer }
func (c *meshConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }
func (c *meshConn) Reset() error {
	c.Conn.(*net.TCPConn).SetLinger(0)
	return c.Close()
}

func (c *meshConn) Close() error {
	c.m.mu.Lock()
	delete(c.m.open, c)
	c.m.mu.Unlock()
	return c.Conn.Close()
}

// refusal is one of the datapath.
type refusal struct {
	policy.Decision
	elsewhere bool
}

func (r *refusal) Error() string   { return r.Decision.Error() }
func (r *refusal) Unwrap() error   { return r.Decision }
func (r *refusal) Elsewhere() bool { return r.elsewhere }

func (m *mesh) Manifest() *policy.Signed { return m.manifest.Load() }

func (m *mesh) Dial(_ context.Context, to resolve.Target, may func(string) policy.Decision) (Conn, error) {
	m.mu.Lock()
	m.dials++
	p := m.pods[to.Pod]
	m.mu.Unlock()
	if p == nil {
		return nil, &refusal{policy.Decision{Code: "node-unreachable"}, true}
	}
	if d := may(p.peer.Claims.Workload); !d.Allowed {
		return nil, &refusal{d, true}
	}
	conn, err := p.dial()
	if err != nil {
		return nil, &refusal{policy.Decision{Code: "node-unreachable", Actual: err.Error()}, true}
	}
	c := &meshConn{conn, m, p.peer}
	m.mu.Lock()
	m.open[c] = true
	m.mu.Unlock()
	return c, nil
}

func (m *mesh) resolve(service string, _ route.Port, avoid []netip.Addr) (resolve.Target, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.services[service] {
		if !slices.Contains(avoid, at.Addr()) {
			return resolve.Target{Pod: at, Node: netip.MustParseAddr("192.0.2.1"), Service: service}, nil
		}
	}
	return resolve.Target{}, errors.New("no endpoints")
}

func (m *mesh) counts() (dials, open int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dials, len(m.open)
}

// addPod gives a Service another endpoint, of the workload, whose connections
// go to ln.
func (w *world) addPod(service, workload string, ln net.Listener) netip.AddrPort {
	w.Helper()
	m := w.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128, 0, byte(len(m.pods) + 1)}), podPort)
	facts := policytest.Peer(m.manifest.Load(), workload)
	leaf := m.ca.Issue(w, ratlstest.Claims(facts), []netip.Addr{at.Addr()})
	peer, err := ratls.VerifyPeer(m.ca.Chain(leaf), m.ca.Pool(), policytest.TrustDomain, policytest.Now())
	if err != nil {
		w.Fatal(err)
	}
	m.pods[at] = &pod{peer, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }}
	m.services[service] = append(m.services[service], at)
	return at
}

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// serve runs a backend that speaks HTTP/1.1 and cleartext HTTP/2.
func serve(t testing.TB, h http.Handler) net.Listener {
	t.Helper()
	ln := listen(t)
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln
}

// certs answers with one self-signed certificate at a time.
type certs struct {
	current atomic.Pointer[tls.Certificate]
	pool    *x509.CertPool
	mu      sync.Mutex
}

func (c *certs) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

func (c *certs) HTTPHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
			io.WriteString(w, "token")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rotate makes a new key.
func (c *certs) rotate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"bank.example", "*.bank.example", "shop.example", "nobody.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool.AddCert(leaf)
	c.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
}

// records are what was logged.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func ingressRules(m *policy.Manifest) {
	m.Ingress = []policy.IngressRule{
		{Name: "bank", Hosts: []string{"bank.example", "*.bank.example"}, Backends: []policy.IngressBackend{
			{Workload: policytest.Web, Mode: policy.ModeHTTP, Ports: []uint16{podPort}},
			{Workload: policytest.Web, Mode: policy.ModeTCP, Ports: []uint16{podPort}},
		}},
		{Name: "shop", Hosts: []string{"shop.example"}, Backends: []policy.IngressBackend{
			{Workload: policytest.DB, Mode: policy.ModeHTTP, Ports: []uint16{podPort}},
		}},
	}
}

// to makes a route from hosts to a Service.
func to(service string, protocol route.Protocol, hosts ...string) route.Route {
	return route.Route{Source: "route-" + service, Hosts: hosts, Rules: []route.Rule{{Backends: []route.Backend{
		{Service: "d/" + service, Port: route.Port{Number: 80}, Protocol: protocol, Weight: 1},
	}}}}
}

func (w *world) route(cfg route.Config) {
	w.Helper()
	tab, err := route.New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.server.SetRoutes(tab)
}

// newWorld has the Service d/web, which bank.example leads to, without pods.
func newWorld(t testing.TB, edits ...func(*Config)) *world {
	t.Helper()
	w := &world{TB: t, certs: &certs{pool: x509.NewCertPool()}, https: listen(t), plain: listen(t), records: &records{}}
	w.certs.rotate(t)
	signed := policytest.New(t, policytest.With(ingressRules)).Signed
	w.mesh = &mesh{ca: ratlstest.New(t, policytest.TrustDomain, policytest.Now()), pods: map[netip.AddrPort]*pod{}, services: map[string][]netip.AddrPort{}, open: map[*meshConn]bool{}}
	w.mesh.manifest.Store(signed)
	log := slog.New(slog.NewTextHandler(w.records, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := Config{
		Listen: Listeners{HTTPS: []net.Listener{w.https}, HTTP: []net.Listener{w.plain}},
		Certs:  w.certs, Mesh: w.mesh, Resolve: w.mesh.resolve,
		Own: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			key, ok := KeyOf(r.Context())
			fmt.Fprintf(rw, "own %v %x", ok, key)
		}),
		Log: log, Access: log, Now: time.Now, Rand: mathrand.Uint64,
		Limits: Limits{Drain: 5 * time.Second},
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	var err error
	if w.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.server.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	w.route(route.Config{Routes: []route.Route{to("web", route.HTTP, "bank.example", "*.bank.example")}})
	return w
}

// client makes one whose connections all go to the ingress.
func (w *world) client(protocols ...func(*http.Protocols)) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.certs.pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", w.https.Addr().String())
		},
		DisableCompression: true, Protocols: new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(true)
	for _, p := range protocols {
		p(tr.Protocols)
	}
	w.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func h2(p *http.Protocols) { p.SetHTTP1(false); p.SetHTTP2(true) }

// get returns the answer with its body read.
func (w *world) get(c *http.Client, url string, edits ...func(*http.Request)) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, url, nil)
	if err != nil {
		w.Fatal(err)
	}
	for _, edit := range edits {
		edit(req)
	}
	res, err := c.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res, string(body)
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
}

func method(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }

// dialTLS connects to the ingress for raw bytes.
func (w *world) dialTLS(sni string) *tls.Conn {
	w.Helper()
	conn, err := tls.Dial("tcp", w.https.Addr().String(), &tls.Config{RootCAs: w.certs.pool, ServerName: sni, NextProtos: []string{"http/1.1"}})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.Fatal(err)
	}
	return conn
}

// dialTLS2 is dialTLS for HTTP/2.
func (w *world) dialTLS2(sni string) *tls.Conn {
	w.Helper()
	conn, err := tls.Dial("tcp", w.https.Addr().String(), &tls.Config{RootCAs: w.certs.pool, ServerName: sni, NextProtos: []string{"h2"}})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		w.Fatal(err)
	}
	return conn
}
