// SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// Attestation makes a proof for the newest key.
func (in *Ingress) Attestation(ctx context.Context, nonce []byte) []byte {
	return in.AttestationFor(ctx, in.SPKI(), nonce)
}

// AttestationFor makes a proof for a TLS key.
func (in *Ingress) AttestationFor(ctx context.Context, key [32]byte, nonce []byte) []byte {
	t := in.w.T
	b := in.Beacon(ctx)
	s := in.statement(key)
	in.mu.Lock()
	if in.edit != nil {
		in.edit(s)
	}
	in.mu.Unlock()
	transcript, err := proof.Transcript(s, nonce, b.parsed)
	must(t, err)
	ev, err := in.machine.Attest(ctx, transcript.ReportData())
	must(t, err)
	record, err := attest.MarshalCMW(ev)
	must(t, err)
	if nonce == nil {
		nonce = []byte{}
	}
	a := &proof.Attestation{
		Schema: proof.AttestationSchema, Statement: *s, Evidence: record, Beacon: b.raw, Nonce: nonce,
		Chain: in.Cred.TLS.Certificate, Receipt: in.logged(ctx),
	}
	text, err := a.Encode()
	must(t, err)
	return text
}

// Beacon is what proofs are made after.
func (in *Ingress) Beacon(ctx context.Context) *BeaconDocument {
	in.mu.Lock()
	old := in.old
	in.mu.Unlock()
	if old != nil {
		return old
	}
	raw, err := in.w.Docs.Get(ctx, "/v1/beacon")
	must(in.w.T, err)
	parsed, err := beacon.Parse(raw)
	must(in.w.T, err)
	return &BeaconDocument{raw, parsed}
}

func (in *Ingress) statement(key [32]byte) *proof.Statement {
	t := in.w.T
	now, err := in.w.Docs.InForce(context.Background())
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(in.ReceiptKey.Public())
	must(t, err)
	hpke, err := hpkeKey()
	must(t, err)
	s := &proof.Statement{
		Schema: proof.StatementSchema, TrustDomain: policytest.TrustDomain, Hosts: []string{Host}, TLSKey: policy.DigestFrom(key),
		HPKE: proof.HPKE{KEM: 0x20, KDF: 1, AEAD: 1, PublicKey: hpke}, ReceiptKey: spki, Certificate: policy.DigestOf(in.Cred.TLS.Certificate[0]),
		Manifest: proof.Followed{Version: now.Manifest.Manifest.Version, Digest: now.Manifest.Digest}, Software: "test",
	}
	if l := now.DenyList; l != nil {
		s.DenyList = proof.Followed{Version: l.List.Version, Digest: l.Digest}
	}
	return s
}

func (in *Ingress) logged(ctx context.Context) proof.Receipt {
	t := in.w.T
	auditor, err := in.w.Docs.Auditor()
	must(t, err)
	cp, signed, err := auditor.Latest(ctx)
	must(t, err)
	digest := policy.DigestOf(in.Cred.TLS.Certificate[0])
	index, entry, err := auditor.Find(ctx, *cp, 0, func(_ int64, raw []byte) bool {
		e, err := translog.ParseEntry(raw)
		return err == nil && e.Certificate == digest
	})
	must(t, err)
	hashes, err := auditor.Prove(ctx, *cp, index)
	must(t, err)
	r := proof.Receipt{Entry: entry, Index: index, Proof: [][]byte{}, Checkpoint: string(signed)}
	for _, h := range hashes {
		r.Proof = append(r.Proof, h[:])
	}
	return r
}

func hpkeKey() ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return key.PublicKey().Bytes(), nil
}
