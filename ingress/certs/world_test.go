// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
	"github.com/c8s-dev/c8s/policy"
)

const domain = "mesh.test"

// sealer is a TEE with one key.
type sealer byte

func (s sealer) SealingKey(_ context.Context, purpose string) (key [32]byte, err error) {
	copy(key[:], purpose)
	key[31] = byte(s)
	return key, nil
}

// clock is the wall clock, moved.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

type logs struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logs) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.all.Bytes())
}

// world is what surrounds a store: ports that a CA visits, a clock, a folder.
type world struct {
	t     *testing.T
	clock clock
	log   logs
	dir   string
	cfg   Config
	store *Store // the one that answers the ports
	mu    sync.Mutex

	httpPort, tlsPort int
	denied            map[string]bool
}

// allowed is the manifest.
func (w *world) allowed(host string) policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denied[host] {
		return policy.Decision{Code: "ingress-host-not-allowed", Rule: "ingress[]", Actual: host}
	}
	return policy.Decision{Allowed: true, Rule: "ingress[0]"}
}

func stderrLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), denied: map[string]bool{}}
	w.cfg = Config{
		TrustDomain: domain, Names: names, Sealer: sealer(1), Path: filepath.Join(w.dir, "state", "certs"), Now: w.clock.now,
		Log:     slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})),
		Allowed: w.allowed,
	}
	w.listen()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", w.log.bytes())
		}
	})
	return w
}

// listen answers as an ingress does, from whichever store is open.
func (w *world) listen() {
	plain, secure := listener(w.t), listener(w.t)
	w.httpPort, w.tlsPort = port(plain), port(secure)
	conf := &tls.Config{
		NextProtos: []string{"http/1.1", ChallengeProtocol},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if s := w.current(); s != nil {
				return s.GetCertificate(h)
			}
			return nil, net.ErrClosed
		},
	}
	servers := []*http.Server{
		{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if s := w.current(); s != nil {
				s.HTTPHandler(http.NotFoundHandler()).ServeHTTP(rw, r)
			}
		})},
		{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)},
	}
	var running sync.WaitGroup
	for i, l := range []net.Listener{plain, tls.NewListener(secure, conf)} {
		running.Go(func() { _ = servers[i].Serve(l) }) // until the cleanup
	}
	w.t.Cleanup(func() {
		for _, s := range servers {
			_ = s.Close()
		}
		running.Wait()
	})
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func (w *world) current() *Store {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store
}

// deny has the manifest list a host, or not.
func (w *world) deny(host string, deny bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denied[host] = deny
}

// pebble runs a CA that visits this world's ports, behind a proxy that counts.
func (w *world) pebble(o pebbletest.Options) *gate {
	w.t.Helper()
	o.HTTPPort, o.TLSPort = w.httpPort, w.tlsPort
	p := pebbletest.Start(w.t, o)
	g := newGate(w.t, p)
	w.cfg.ACME = &ACME{Directory: g.directory, Roots: g.roots}
	return g
}

// open starts a store, as after a restart if there was one before.
func (w *world) open() *Store {
	w.t.Helper()
	if w.cfg.Metrics != nil {
		w.cfg.Metrics = prometheus.NewRegistry()
	}
	s, err := Open(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s.patience = 30 * time.Second
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store = s
	return s
}

// handshake returns the chain that a client sees.
func (w *world) handshake(name string) ([]*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", itoa(w.tlsPort)), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates, nil
}

// wantValid wants a name answered with a certificate that a browser that trusts
// the CA takes, and returns it.
func (w *world) wantValid(name string, root []byte) *x509.Certificate {
	w.t.Helper()
	chain, err := w.handshake(name)
	if err != nil {
		w.t.Fatalf("%s: %v; status %v", name, err, w.current().Status())
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between, CurrentTime: w.clock.now()}); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return chain[0]
}

// wantProblem wants the status of a name to say a code.
func wantProblem(t *testing.T, s *Store, name, code string) *Refusal {
	t.Helper()
	for _, st := range s.Status() {
		if st.Name != name {
			continue
		}
		if st.Problem == nil && code == "" {
			return nil
		}
		if st.Problem == nil || st.Problem.Code != code {
			t.Fatalf("%s: problem %v, want %q", name, st.Problem, code)
		}
		return st.Problem
	}
	t.Fatalf("%s is not in the status", name)
	return nil
}

func stateOf(t *testing.T, s *Store, name string) Status {
	t.Helper()
	for _, st := range s.Status() {
		if st.Name == name {
			return st
		}
	}
	t.Fatalf("%s is not in the status", name)
	return Status{}
}
