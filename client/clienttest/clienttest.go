// SPDX-License-Identifier: Apache-2.0

// Package clienttest runs attested ingresses in the process of a test, for
// clients to verify: real documents of a real CDS over real TLS, from simulated
// machines, and lies where a test wants them.
package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/cdstest"
	cds "github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// Host is the one that every ingress serves.
const Host = "bank.example"

// World is a CDS and what ingresses of one test share.
type World struct {
	*cdstest.CDS
	T    testing.TB
	Docs *cds.Documents

	mu     sync.Mutex
	offset time.Duration // of the client's clock
}

// New starts a CDS whose manifest has a rule for Host.
func New(t testing.TB, opts ...policytest.Option) *World {
	t.Helper()
	own := policytest.With(func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Roles = append(m.Substrates[i].Roles, policy.RoleIngress)
		}
		m.Ingress = []policy.IngressRule{{Name: "bank", Hosts: []string{Host}, Backends: []policy.IngressBackend{
			{Workload: policytest.Web, Mode: policy.ModeHTTP, Ports: []uint16{8080}}, {Workload: policytest.DB, Mode: policy.ModeTCP, Ports: []uint16{5432}},
		}}}
	})
	w := &World{CDS: cdstest.New(t, append([]policytest.Option{own}, opts...)...), T: t}
	w.Read()
	return w
}

// Read connects to the CDS that runs now.
func (w *World) Read() {
	docs, err := w.CDS.Client().Documents(w.T.Context())
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(docs.Close)
	w.Docs = docs
}

// Now is the time of clients.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

// Pass lets time pass for clients.
func (w *World) Pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

// Ingress is a double: real documents over real TLS, and lies where a test
// wants them.
type Ingress struct {
	w          *World
	machine    attest.Attester
	Cred       *cds.Credential
	ReceiptKey ed25519.PrivateKey
	ln         net.Listener
	MaxTLS     uint16 // version; zero for the newest
	Server     *http.Server
	leaf       *x509.Certificate

	Requests, Bytes atomic.Int64 // of users, and what they sent
	Proofs, Conns   atomic.Int64
	handler         atomic.Pointer[http.HandlerFunc]

	mu    sync.Mutex
	cert  *tls.Certificate
	edit  func(*proof.Statement)
	serve func(path string, w http.ResponseWriter, r *http.Request) bool // lies
	old   *BeaconDocument                                                // shown instead of a new one
}

// BeaconDocument is a beacon, and what it says.
type BeaconDocument struct {
	raw    []byte
	parsed *beacon.Beacon
}

// Ingress starts one whose machine is enrolled.
func (w *World) Ingress(edits ...func(*Ingress)) *Ingress {
	w.T.Helper()
	in := &Ingress{w: w, machine: w.Attester("node")}
	cred, err := w.CDS.Client().EnrolIngress(w.T.Context(), in.machine)
	if err != nil {
		w.T.Fatal(err)
	}
	in.Cred = cred
	_, in.ReceiptKey, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.T.Fatal(err)
	}
	in.Rotate()
	in.Use(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "hello "+r.Proto) })
	for _, edit := range edits {
		edit(in)
	}
	in.start()
	return in
}

// Rotate makes a new TLS key; connections from now on end at it.
func (in *Ingress) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		in.w.T.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: Host}, DNSNames: []string{Host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		in.w.T.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		in.w.T.Fatal(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leaf, in.cert = leaf, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Use answers requests of users.
func (in *Ingress) Use(h http.HandlerFunc) { in.handler.Store(&h) }

func (in *Ingress) start() {
	ln, err := (&net.ListenConfig{}).Listen(in.w.T.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		in.w.T.Fatal(err)
	}
	in.ln = ln
	in.Server = &http.Server{
		Handler: in, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				in.Conns.Add(1)
			}
		},
		TLSConfig: &tls.Config{MaxVersion: in.MaxTLS, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			in.mu.Lock()
			defer in.mu.Unlock()
			return in.cert, nil
		}},
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = in.Server.ServeTLS(ln, "", "") }()
	in.w.T.Cleanup(func() { in.Server.Close(); <-done })
}

// ServeHTTP answers as an ingress does.
func (in *Ingress) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	serve := in.serve
	in.mu.Unlock()
	if serve != nil && serve(r.URL.Path, rw, r) {
		return
	}
	switch path, own := strings.CutPrefix(r.URL.Path, proof.PathDiscovery); {
	case own && path == "/attestation":
		in.Proofs.Add(1)
		nonce, err := nonceOf(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = rw.Write(in.Attestation(r.Context(), nonce))
	case own && strings.HasPrefix(path, "/cds/"):
		body, err := in.w.Docs.Get(r.Context(), strings.TrimPrefix(path, "/cds"))
		if err != nil {
			http.Error(rw, "not-found", http.StatusNotFound)
			return
		}
		_, _ = rw.Write(body)
	default:
		in.Requests.Add(1)
		r.Body = &counted{r.Body, &in.Bytes}
		(*in.handler.Load())(rw, r)
	}
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// SPKI is the hash of the newest TLS key.
func (in *Ingress) SPKI() [32]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return sha256.Sum256(in.leaf.RawSubjectPublicKeyInfo)
}

// Lie answers some paths otherwise.
func (in *Ingress) Lie(serve func(path string, w http.ResponseWriter, r *http.Request) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.serve = serve
}

// Say edits the statements from now on.
func (in *Ingress) Say(edit func(*proof.Statement)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.edit = edit
}

func nonceOf(r *http.Request) ([]byte, error) {
	text := r.URL.Query().Get("nonce")
	if text == "" {
		return nil, nil
	}
	return base64.RawURLEncoding.DecodeString(text)
}

// Answer lies about one path.
func (in *Ingress) Answer(path string, with http.HandlerFunc) {
	in.Lie(func(p string, w http.ResponseWriter, r *http.Request) bool {
		if p != path {
			return false
		}
		with(w, r)
		return true
	})
}

// NothingArrived fails the test if anything of a user's request did.
func (in *Ingress) NothingArrived(t testing.TB) {
	t.Helper()
	if r, b := in.Requests.Load(), in.Bytes.Load(); r != 0 || b != 0 {
		t.Errorf("%d requests with %d bytes arrived", r, b)
	}
}

// Addr is where it listens.
func (in *Ingress) Addr() string { return in.ln.Addr().String() }

// Leaf is its newest web certificate, which is its own root.
func (in *Ingress) Leaf() *x509.Certificate {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.leaf
}

// Keep shows the beacon of now from now on.
func (in *Ingress) Keep(ctx context.Context) {
	b := in.Beacon(ctx)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.old = b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
}
