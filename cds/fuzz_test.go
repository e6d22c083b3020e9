// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// target is a live CDS that fuzzers call as if over one TLS connection, on which
// a node's certificate was shown.
type target struct {
	*running
	l      *lone
	ctx    context.Context //nolint:containedctx // of every call
	id     [sha256.Size]byte
	key    *ecdsa.PrivateKey // of the node
	csr    []byte
	record []byte // evidence, once given for something else
	head   ledger.Head
}

func newTarget(f *testing.F) *target {
	f.Helper()
	l := newLone(f)
	g := &target{l: l, running: l.mustRun(storetest.NewMemory())}
	g.admission = newAdmission(Limits{Connections: 1 << 20, CallBurst: 1e12, CallsPerSecond: 1e12})
	var err error
	if g.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		f.Fatal(err)
	}
	resp, err := g.issueFor(f.Context(), g.key)
	if err != nil {
		f.Fatal(err)
	}
	cs := tlsState(f)
	for _, der := range resp.GetChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			f.Fatal(err)
		}
		cs.PeerCertificates = append(cs.PeerCertificates, cert)
	}
	s := session{tls: cs, remote: "192.0.2.1:1"}
	g.ctx = withSession(context.WithoutCancel(f.Context()), s)
	if g.id, err = s.id(); err != nil {
		f.Fatal(err)
	}
	if g.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, g.key); err != nil {
		f.Fatal(err)
	}
	ev, err := l.tee.Attest(f.Context(), attest.Transcript{Purpose: api.PurposeNode}.ReportData())
	if err == nil {
		g.record, err = attest.MarshalCMW(ev)
	}
	if err != nil {
		f.Fatal(err)
	}
	g.head = g.c.ledger.View().Head
	return g
}

// tlsState is the server's side of a TLS 1.3 connection that once was.
func tlsState(t testing.TB) *tls.ConnectionState {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	client := tls.Client(there, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // a test's
	go func() { _ = client.Handshake() }()
	server := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13})
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	cs := server.ConnectionState()
	return &cs
}

// nonce is a good one, so that what comes after it is fuzzed too.
func (g *target) nonce(t *testing.T) []byte {
	t.Helper()
	nonce, _, err := g.c.challenges.issue(g.id, "fuzz")
	if err != nil {
		t.Fatal(err)
	}
	return nonce[:]
}

// refused requires a refusal with a stable code, that changed nothing.
func (g *target) refused(t *testing.T, answered bool, err error) {
	t.Helper()
	if answered || err == nil {
		t.Fatal("the call was answered")
	}
	if code := codeOf(err); code == codeInternal || code == "" {
		t.Errorf("refused without a code: %v", err)
	}
	if now := g.c.ledger.View().Head; now.Size != g.head.Size {
		t.Errorf("the log has %d entries, %d before", now.Size, g.head.Size)
	}
}

func FuzzEnrol(f *testing.F) {
	g := newTarget(f)
	st := &api.PodStatement{
		Nonce: make([]byte, 32), Exporter: make([]byte, 32), SPKIHash: make([]byte, 32), Evidence: make([]byte, 32),
		Namespace: "default", Name: "web-0", UID: "uid", Images: []policy.Digest{policytest.Digest(policytest.Web)}, Addrs: [][]byte{{10, 81, 1, 2}},
	}
	statement, err := st.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(0), int32(1), g.csr, []byte{}, []byte{}, g.record, false)
	f.Add(byte(0), int32(3), g.csr, []byte{}, []byte{}, g.record, true)
	f.Add(byte(0), int32(-1), g.csr, []byte{}, []byte{}, g.record, true)
	f.Add(byte(1), int32(0), g.csr, statement, []byte("no signature"), []byte{}, false)
	f.Add(byte(1), int32(0), g.csr, statement, []byte{}, g.record, true)
	f.Add(byte(2), int32(0), g.csr, statement, []byte{}, g.record, false)
	f.Add(byte(3), int32(0), []byte{0x30}, []byte{}, []byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, kind byte, role int32, csr, statement, signature, evidence []byte, renew bool) {
		req := &api.EnrolRequest{Nonce: g.nonce(t), Csr: csr}
		switch kind % 4 {
		case 0:
			req.Proof = &api.EnrolRequest_Machine{Machine: &api.MachineProof{Role: api.MachineRole(role), Evidence: evidence}}
		case 1:
			if len(signature) == 0 { // whatever it says, the node said so
				digest := api.StatementDigest(statement)
				signature, _ = ecdsa.SignASN1(rand.Reader, g.key, digest[:])
			}
			req.Proof = &api.EnrolRequest_Pod{Pod: &api.PodProof{Statement: statement, Signature: signature, Evidence: evidence}}
		case 2:
			req.Proof = &api.EnrolRequest_Guest{Guest: &api.GuestProof{Statement: statement, Evidence: evidence}}
		}
		call := (*attestation)(g.Server).Enrol
		if renew {
			call = (*attestation)(g.Server).Renew
		}
		resp, err := call(g.ctx, req)
		g.refused(t, resp != nil, err)
		_, err = call(g.ctx, &api.EnrolRequest{Nonce: statement, Csr: csr, Proof: req.Proof}) // a nonce of nobody's
		g.refused(t, false, err)
	})
}

func FuzzChallenge(f *testing.F) {
	g := newTarget(f)
	valid := g.c.ledger.View().Checkpoint
	f.Add(valid)
	f.Add([]byte("c8s.test/c8s/log\n5\nAAAA\n\n— x AAAA\n"))
	f.Fuzz(func(t *testing.T, checkpoint []byte) {
		resp, err := (*attestation)(g.Server).Challenge(g.ctx, &api.ChallengeRequest{Checkpoint: checkpoint})
		if err == nil {
			if err := g.c.challenges.use(resp.GetNonce(), g.id); err != nil {
				t.Error(err)
			}
			if len(checkpoint) == 0 || strings.HasPrefix(string(checkpoint), string(valid)) {
				return
			}
			if err := g.c.observe(t.Context(), checkpoint); err != nil {
				t.Errorf("accepted, and then not: %v", err)
			}
			return
		}
		g.refused(t, resp != nil, err)
		if err := g.c.ledger.Broken(); err != nil {
			t.Fatalf("a stranger stopped the CDS: %v", err)
		}
	})
}

func FuzzPublish(f *testing.F) {
	g := newTarget(f)
	stranger := policytest.New(f)
	f.Add(g.l.f.Envelope)
	f.Add(stranger.Envelope)
	f.Add(stranger.DenyList(f, nil).Envelope)
	f.Add([]byte(`{"payloadType":"application/vnd.c8s.manifest.v1+json","payload":"e30","signatures":[]}`))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		resp, err := (*policyAPI)(g.Server).PublishManifest(g.ctx, &api.Document{Envelope: envelope})
		g.refused(t, resp != nil, err)
		resp, err = (*policyAPI)(g.Server).PublishDenyList(g.ctx, &api.Document{Envelope: envelope})
		g.refused(t, resp != nil, err)
	})
}

func FuzzCosign(f *testing.F) {
	g := newTarget(f)
	f.Add(g.c.ledger.View().Checkpoint)
	f.Add([]byte("c8s.test/c8s/log\n1\nAAAA\n\n— x AAAA\n"))
	f.Fuzz(func(t *testing.T, checkpoint []byte) {
		resp, err := (*witnessAPI)(g.Server).Cosign(g.ctx, &api.CosignRequest{Checkpoint: checkpoint})
		g.refused(t, resp != nil, err)
	})
}

func FuzzJoin(f *testing.F) {
	g := newTarget(f)
	recipient, err := handover.NewRecipient()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, g.record, recipient.PublicKey())
	f.Add([]byte("nonce"), []byte{0x82}, []byte("key"))
	f.Fuzz(func(t *testing.T, nonce, evidence, key []byte) {
		for _, nonce := range [][]byte{nonce, g.nonce(t)} {
			resp, err := (*replicaAPI)(g.Server).Join(g.ctx, &api.JoinRequest{Nonce: nonce, Evidence: evidence, HpkeKey: key})
			g.refused(t, resp != nil, err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	g := newTarget(f)
	g.core.Store(nil) // as if it waited for shares
	payload := []byte(`{}`)
	kit, err := policy.SignPayload(api.RecoveryKitType, payload, g.l.f.Keys...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kit, []byte("share"))
	f.Add(g.l.f.Envelope, []byte{})
	f.Fuzz(func(t *testing.T, kit, share []byte) {
		resp, err := (*recoveryAPI)(g.Server).Restore(g.ctx, &api.RestoreRequest{Kit: kit, Share: share})
		g.refused(t, resp != nil, err)
		if _, err := g.shares.seed(t.Context()); !errors.Is(err, errNoWay) {
			t.Errorf("there is a seed: %v", err)
		}
	})
}

func FuzzDocumentPath(f *testing.F) {
	g := newTarget(f)
	h := g.handler()
	for _, path := range []string{
		"/v1/manifest", "/v1/document/" + string(g.l.f.Digest), "/v1/document/sha256:%2e%2e/head", "/v1/document/../../head", "/v1/document/a/b",
		"/v1/certificate/root", "/v1/evidence/" + strings.Repeat("0", 64), "/v1/evidence/%00", "/v1/issuance/" + string(g.l.f.Digest), "/v1/issuance/sha256:%2e%2e/head", "/v1/countersignature/" + string(g.l.f.Digest),
		"/log/checkpoint", "/log/tile/0/000", "/log/tile/0/000.p/1", "/log/tile/entries/000.p/2", "/log/tile/8/../../head", "/log/tile/-1/x", "/boot/seed/x", "/",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: path, RawPath: path}
		if unescaped, err := url.PathUnescape(path); err == nil {
			r.URL.Path = unescaped
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK, http.StatusNotFound, http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		default:
			t.Errorf("%q: %d %s", path, w.Code, w.Body)
		}
		if w.Code == http.StatusOK && w.Body.Len() == 0 {
			t.Errorf("%q: an empty document", path)
		}
	})
}
