// SPDX-License-Identifier: Apache-2.0

// Package prooftest makes proofs of an ingress for tests. The CDS is a real one
// in the test's process; only the machines are simulated.
package prooftest

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// The hosts of the manifest; Host leads to workload policytest.Web.
const (
	Host     = "bank.test"
	Wildcard = "*.bank.test"
)

// Machines are the simulated machines that the manifest accepts as ingress,
// beside "cds" and "node".
const (
	Machine = "ingress"
	Other   = "other-ingress"
)

// World is a CDS and an ingress that it certified.
type World struct {
	*cdstest.CDS
	Client     *client.Client
	TEE        attest.Attester // of the ingress
	Credential *client.Credential
	TLSKey     *ecdsa.PrivateKey
	HPKE       hpke.PrivateKey
	Receipts   ed25519.PrivateKey

	t testing.TB
}

// Accept is the manifest of a world, before edits.
func Accept(t testing.TB) func(*policy.Manifest) {
	return func(m *policy.Manifest) {
		own := func(o *sim.Options) { o.HostData = m.Operators.Digest() }
		simtest.Accept(simtest.New(t, "cds", own), simtest.New(t, "node", own), simtest.New(t, Machine, own), simtest.New(t, Other, own))(m)
		for i := range m.Substrates[2:] {
			m.Substrates[2+i].Roles = []policy.Role{policy.RoleIngress}
		}
		m.Ingress = []policy.IngressRule{{
			Name: "bank", Hosts: []string{Host, Wildcard},
			Backends: []policy.IngressBackend{{Workload: policytest.Web, Mode: policy.ModeHTTP, Ports: []uint16{8080}}},
		}}
	}
}

// New starts a CDS and enrols the ingress.
func New(t testing.TB, edits ...func(*policy.Manifest)) *World {
	t.Helper()
	options := []policytest.Option{policytest.With(Accept(t))}
	for _, edit := range edits {
		options = append(options, policytest.With(edit))
	}
	w := &World{CDS: cdstest.New(t, options...), t: t}
	w.TEE = w.Attester(Machine)
	var err error
	w.Client, err = client.New(client.Config{
		Addrs: []string{w.Addr}, Operators: w.Operators, Manifest: w.Signed, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) { // it has another address after every start
			return (&net.Dialer{}).DialContext(ctx, network, w.Addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.TLSKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if w.HPKE, err = hpke.DHKEM(ecdh.X25519()).GenerateKey(); err != nil {
		t.Fatal(err)
	}
	if _, w.Receipts, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.Enrol()
	return w
}

// Enrol gets the ingress a new mesh certificate.
func (w *World) Enrol() {
	w.t.Helper()
	cred, err := w.Client.EnrolIngress(w.t.Context(), w.TEE)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Credential = cred
}

// SPKI hashes a public key as statements do.
func SPKI(t testing.TB, key *ecdsa.PublicKey) [32]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(der)
}

// Document reads a document of the CDS.
func (w *World) Document(path string) []byte {
	w.t.Helper()
	d, err := w.Client.Documents(w.t.Context())
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

// Bundle reads the CDS's keys.
func (w *World) Bundle() *trust.Bundle {
	w.t.Helper()
	d, err := w.Client.Documents(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	return d.Bundle()
}

// Publish puts the next manifest in force.
func (w *World) Publish(edit func(*policy.Manifest)) {
	w.t.Helper()
	w.Fixture = w.Next(w.t, edit)
	if err := w.Server.Publish(w.t.Context(), w.Envelope); err != nil {
		w.t.Fatal(err)
	}
	w.Learn()
}

// Deny puts the next deny list in force.
func (w *World) Deny(entries ...policy.Denial) {
	w.t.Helper()
	list := w.DenyList(w.t, w.Client.DenyList(), entries...)
	if _, err := w.Client.PublishDenyList(w.t.Context(), list.Envelope); err != nil {
		w.t.Fatal(err)
	}
	w.Learn()
}

// Learn brings the client to what is in force.
func (w *World) Learn() *client.InForce {
	w.t.Helper()
	d, err := w.Client.Documents(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	now, err := d.InForce(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return now
}

// Statement is what the ingress says of itself.
func (w *World) Statement() *proof.Statement {
	w.t.Helper()
	public, err := x509.MarshalPKIXPublicKey(w.Receipts.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.Client.Manifest()
	s := &proof.Statement{
		Schema: proof.StatementSchema, TrustDomain: m.Manifest.TrustDomain, Hosts: []string{Wildcard, Host},
		TLSKey: policy.DigestFrom(SPKI(w.t, &w.TLSKey.PublicKey)),
		HPKE: proof.HPKE{
			KEM: w.HPKE.PublicKey().KEM().ID(), KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES128GCM().ID(), PublicKey: w.HPKE.PublicKey().Bytes(),
		},
		ReceiptKey: public, Certificate: policy.DigestOf(w.Credential.TLS.Certificate[0]),
		Manifest: proof.Followed{Version: m.Manifest.Version, Digest: m.Digest}, Software: "v0-test",
	}
	if list := w.Client.DenyList(); list != nil {
		s.DenyList = proof.Followed{Version: list.List.Version, Digest: list.Digest}
	}
	return s
}

// Attest makes the attestation of a statement with a beacon, by the given TEE.
func (w *World) Attest(tee attest.Attester, s *proof.Statement, document, nonce []byte) *proof.Attestation {
	w.t.Helper()
	b, err := beacon.Parse(document)
	if err != nil {
		w.t.Fatal(err)
	}
	transcript, err := proof.Transcript(s, nonce, b)
	if err != nil {
		w.t.Fatal(err)
	}
	r := w.Credential.Receipt
	return &proof.Attestation{
		Schema: proof.AttestationSchema, Statement: *s, Evidence: Evidence(w.t, tee, transcript), Beacon: document, Nonce: append([]byte{}, nonce...),
		Chain:   append([][]byte(nil), w.Credential.TLS.Certificate...),
		Receipt: proof.Receipt{Entry: r.GetEntry(), Index: r.GetIndex(), Proof: append([][]byte{}, r.GetProof()...), Checkpoint: string(r.GetCheckpoint())},
	}
}

// Evidence asks a TEE.
func Evidence(t testing.TB, tee attest.Attester, transcript attest.Transcript) []byte {
	t.Helper()
	evidence, err := tee.Attest(context.WithoutCancel(t.Context()), transcript.ReportData())
	if err != nil {
		t.Fatal(err)
	}
	record, err := attest.MarshalCMW(evidence)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// Good is an attestation that everybody accepts now.
func (w *World) Good() *proof.Attestation {
	w.t.Helper()
	return w.Attest(w.TEE, w.Statement(), w.Document("/v1/beacon"), nil)
}

// Against is what a client on the right connection judges by.
func (w *World) Against() proof.Against {
	w.t.Helper()
	return proof.Against{
		Manifest: w.Client.Manifest(), DenyList: w.Client.DenyList(), Bundle: w.Bundle(), Now: time.Now(), MaxAge: proof.DefaultMaxAge,
		TLSKey: SPKI(w.t, &w.TLSKey.PublicKey), Host: Host,
	}
}
