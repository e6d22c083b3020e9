// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// world is a running CDS with a manifest that accepts simulated machines.
type world struct {
	t     testing.TB
	f     *policytest.Fixture
	addr  string
	store *storetest.Memory
	edit  func(*cds.Config) // of the next start
	log   *lockedBuffer
	clock *clock
	stop  func()
	srv   *cds.Server
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type clock struct {
	born   time.Time
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// mono advances with the wall clock: as if time really had passed.
func (c *clock) mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.born) + c.offset
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// measuredFor launches a machine as the operators' own: HOST_DATA names them.
func measuredFor(ops policy.Operators) func(*sim.Options) {
	return func(o *sim.Options) { o.HostData = ops.Digest() }
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, store: storetest.NewMemory(), log: &lockedBuffer{}, clock: &clock{born: time.Now()}}
	w.f = policytest.New(t, policytest.With(func(m *policy.Manifest) {
		own := measuredFor(m.Operators)
		simtest.Accept(simtest.New(t, "cds", own), simtest.New(t, "node", own))(m)
	}))
	w.start(simtest.Attester(t, "cds", measuredFor(w.f.Operators)))
	return w
}

func (w *world) start(att attest.Attester) {
	w.t.Helper()
	w.startAt("127.0.0.1:0", att)
}

func (w *world) startAt(addr string, att attest.Attester) {
	w.t.Helper()
	w.launch(addr, att)
	w.waitReady()
}

// waitReady waits until the replica can issue.
func (w *world) waitReady() {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for w.srv.Ready() != nil {
		if time.Now().After(deadline) {
			w.t.Fatalf("the CDS is not ready: %v\n%s", w.srv.Ready(), w.log)
		}
		time.Sleep(time.Millisecond)
	}
}

// launch starts a replica without waiting for it.
func (w *world) launch(addr string, att attest.Attester) {
	w.t.Helper()
	w.store = w.store.Reopen()
	cfg := cds.Config{
		Attester: att, Manifest: w.f.Signed, Operators: w.f.Operators, Store: w.store, Name: "one",
		Registry: prometheus.NewRegistry(), Wall: w.clock.now, Mono: w.clock.mono, Log: slog.New(slog.NewJSONHandler(w.log, nil)),
	}
	if w.edit != nil {
		w.edit(&cfg)
	}
	var err error
	if w.srv, err = cds.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	srv := w.srv
	go func() { done <- srv.Serve(ctx, ln) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				w.t.Errorf("Serve: %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

func (w *world) node() attest.Attester {
	return simtest.Attester(w.t, "node", measuredFor(w.f.Operators))
}

func (w *world) client() *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{
		Addrs: []string{w.addr}, Operators: w.f.Operators, Manifest: w.f.Signed, Now: w.clock.now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func webPod() client.Pod {
	return client.Pod{
		Namespace: "default", Name: "web-0", UID: "uid-web-0", Images: []policy.Digest{policytest.Digest(policytest.Web)},
		Addrs: []netip.Addr{netip.MustParseAddr("10.81.1.2"), netip.MustParseAddr("fd81:1::2")},
	}
}

// caller is a client that may do anything: it holds one raw connection.
type caller struct {
	t    testing.TB
	conn *tls.Conn
	api  api.AttestationClient
	pol  api.PolicyClient
	key  *ecdsa.PrivateKey
	csr  []byte
	spki []byte
}

func (w *world) call(cert *tls.Certificate) *caller {
	w.t.Helper()
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}, func(tls.ConnectionState) error { return nil })
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", w.addr, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	var used bool
	h := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("the connection is gone")
			}
			used = true
			return conn, nil
		},
	}}
	c := &caller{t: w.t, conn: conn, api: api.NewAttestationClient(h, "https://cds"), pol: api.NewPolicyClient(h, "https://cds")}
	c.newKey()
	return c
}

func (c *caller) newKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		c.t.Fatal(err)
	}
	if c.spki, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		c.t.Fatal(err)
	}
	c.key = key
}

func (c *caller) nonce() []byte {
	c.t.Helper()
	resp, err := c.api.Challenge(c.t.Context(), &api.ChallengeRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetNonce()
}

func (c *caller) exporter(nonce []byte) []byte {
	c.t.Helper()
	cs := c.conn.ConnectionState()
	e, err := api.Exporter(&cs, nonce)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// evidence attests what the caller would have to, unless told otherwise.
func (c *caller) evidence(att attest.Attester, nonce, exporter, spki []byte) *api.EnrolRequest {
	c.t.Helper()
	record := c.attest(att, api.MachineTranscript(api.PurposeNode, nonce, exporter, spki))
	return &api.EnrolRequest{Nonce: nonce, Csr: c.csr, Proof: &api.EnrolRequest_Machine{Machine: &api.MachineProof{
		Role: api.MachineRole_MACHINE_ROLE_NODE, Evidence: record,
	}}}
}

// attest makes evidence over a transcript.
func (c *caller) attest(att attest.Attester, transcript attest.Transcript) []byte {
	c.t.Helper()
	ev, err := att.Attest(c.t.Context(), transcript.ReportData())
	if err != nil {
		c.t.Fatal(err)
	}
	record, err := attest.MarshalCMW(ev)
	if err != nil {
		c.t.Fatal(err)
	}
	return record
}

// statement is an honest statement about webPod for the caller's key.
func (c *caller) statement(node *client.Credential, nonce []byte) *api.PodStatement {
	p, spki := webPod(), sha256.Sum256(c.spki)
	st := &api.PodStatement{
		Nonce: nonce, Exporter: c.exporter(nonce), SPKIHash: spki[:], Evidence: node.Peer.Claims.EvidenceHash[:],
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Images: p.Images,
	}
	for _, a := range p.Addrs {
		st.Addrs = append(st.Addrs, a.AsSlice())
	}
	return st
}

func (c *caller) signed(st *api.PodStatement, key *ecdsa.PrivateKey) *api.EnrolRequest {
	c.t.Helper()
	raw, err := st.Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	digest := api.StatementDigest(raw)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	return &api.EnrolRequest{Nonce: st.Nonce, Csr: c.csr, Proof: &api.EnrolRequest_Pod{Pod: &api.PodProof{Statement: raw, Signature: sig}}}
}

// wantCode requires that err carries exactly the code and nothing else.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var remote *connect.Error
	if !errors.As(err, &remote) {
		t.Fatalf("got %v, want a refusal with %s", err, code)
	}
	if remote.Message() != code {
		t.Errorf("refused with %q, want %q and no detail", remote.Message(), code)
	}
}

// document reads what anybody may read.
func (w *world) document(path string) []byte {
	w.t.Helper()
	d, err := w.client().Documents(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.Get(w.t.Context(), path)
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

func hexOf(hash [32]byte) string { return hex.EncodeToString(hash[:]) }
