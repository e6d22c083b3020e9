// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

// Codes of what keeps a proof from being made. Those of client/proof and of the
// CDS are passed on.
const (
	CodeNotEnrolled = "ingress-not-enrolled"
	CodeForeignRoot = "ingress-certificate-foreign"
	CodeNoKey       = "ingress-no-tls-key"
	CodeNoHost      = "ingress-no-host"
)

// beaconAge is how old a beacon from the CDS may be: there is a new one every
// ten seconds.
const beaconAge = time.Minute

// shown is what clients are shown: the proofs of one round. It is never
// written after it was made.
type shown struct {
	made   time.Time
	beacon *beacon.Beacon
	bundle *trust.Bundle
	keys   map[[32]byte]*keyProof
	only   *keyProof // where there is one key
}

// keyProof is the proof of one TLS key.
type keyProof struct {
	key         [32]byte
	attestation *proof.Attestation
	proven      *proof.Proof
	body        []byte
	etag        string
}

// word is what the CDS has at one moment, read on one connection.
type word struct {
	beacon   *beacon.Beacon
	document []byte // the beacon's
	bundle   *trust.Bundle
	inForce  *client.InForce
}

// round makes a proof for every TLS key.
func (a *Attester) round(ctx context.Context) (*shown, error) {
	keys, err := keyHashes(a.cfg.Keys.Keys())
	if err != nil {
		return nil, err
	}
	w, err := a.askWord(ctx)
	if err != nil {
		return nil, err
	}
	// After the word: a certificate issued under a newer manifest than that
	// fails below, and the next round is better.
	cred := a.cfg.Identity.Enrolled()
	if cred == nil {
		return nil, attest.NewFailure(CodeNotEnrolled, "a mesh certificate", "none yet", "see why the CDS does not certify this machine")
	}
	if root, err := w.bundle.RootCertificate(); err != nil || !slices.ContainsFunc(cred.Roots, root.Equal) {
		a.cfg.Identity.Suspect()
		return nil, attest.NewFailure(CodeForeignRoot, "a mesh certificate of the CDS that answers", "one of another CDS", "the ingress enrols again by itself")
	}
	next := &shown{made: a.cfg.Now(), beacon: w.beacon, bundle: w.bundle, keys: map[[32]byte]*keyProof{}}
	for _, key := range keys {
		p, err := a.prove(ctx, w, cred, key)
		if err != nil {
			return nil, err
		}
		next.keys[key], next.only = p, p
	}
	if len(next.keys) != 1 {
		next.only = nil
	}
	return next, nil
}

// word is what the proofs say is in force.
func (s *shown) word() (w [2]proof.Followed, cds policy.Digest) {
	for _, p := range s.keys {
		return [2]proof.Followed{p.proven.Statement.Manifest, p.proven.Statement.DenyList}, s.bundle.Digest()
	}
	return w, ""
}

func keyHashes(keys []*ecdsa.PublicKey) ([][32]byte, error) {
	if len(keys) == 0 {
		return nil, attest.NewFailure(CodeNoKey, "a TLS key", "none", "see why the store of certificates has none")
	}
	hashes := make([][32]byte, len(keys))
	for i, key := range keys {
		spki, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("hashing a TLS key: %w", err)
		}
		hashes[i] = sha256.Sum256(spki)
	}
	return hashes, nil
}

// askWord reads the beacon first and then what is in force, so that what is
// stated is at least as new as the beacon.
func (a *Attester) askWord(ctx context.Context) (*word, error) {
	w, knew := &word{}, a.knows()
	err := a.source.with(ctx, func(ctx context.Context, d *client.Documents) error {
		w.bundle = d.Bundle()
		key, err := w.bundle.BeaconKey()
		if err != nil {
			return err
		}
		if w.document, err = d.Get(ctx, "/v1/beacon"); err != nil {
			return err
		}
		if w.beacon, err = beacon.Verify(w.document, key, a.cfg.CDS.Manifest().Manifest.TrustDomain, a.cfg.Now(), beaconAge); err != nil {
			return err
		}
		w.inForce, err = d.InForce(ctx)
		return err
	})
	if a.knows() != knew && a.cfg.Adopted != nil {
		a.cfg.Adopted()
	}
	return w, err
}

// known names the operators' word that the CDS client has.
type known struct{ manifest, denyList policy.Digest }

func (a *Attester) knows() known { return knownTo(a.cfg.CDS) }

func knownTo(c CDS) known {
	k := known{manifest: c.Manifest().Digest}
	if list := c.DenyList(); list != nil {
		k.denyList = list.Digest
	}
	return k
}

// prove makes the proof of one key, and verifies it.
func (a *Attester) prove(ctx context.Context, w *word, cred *client.Credential, key [32]byte) (*keyProof, error) {
	s, err := a.statement(w, cred, key)
	if err != nil {
		return nil, err
	}
	transcript, err := proof.Transcript(s, nil, w.beacon)
	if err != nil {
		return nil, err
	}
	r := cred.Receipt
	at := &proof.Attestation{
		Schema: proof.AttestationSchema, Statement: *s, Beacon: w.document, Nonce: []byte{}, Chain: cred.TLS.Certificate,
		Receipt: proof.Receipt{Entry: r.GetEntry(), Index: r.GetIndex(), Proof: append([][]byte{}, r.GetProof()...), Checkpoint: string(r.GetCheckpoint())},
	}
	if at.Evidence, err = a.ask(ctx, transcript); err != nil {
		return nil, fmt.Errorf("asking for the evidence of a proof: %w", err)
	}
	p := &keyProof{key: key, attestation: at}
	if p.body, err = at.Encode(); err != nil {
		return nil, err
	}
	p.etag = etagOf(p.body)
	p.proven, err = at.Verify(proof.Against{
		Manifest: w.inForce.Manifest, DenyList: w.inForce.DenyList, Bundle: w.bundle, Now: a.cfg.Now(), MaxAge: proof.DefaultMaxAge,
		TLSKey: key, Host: strings.Replace(s.Hosts[0], "*.", "any.", 1), Cache: a.judged,
	})
	if err != nil {
		return nil, fmt.Errorf("clients would refuse this ingress: %w", err)
	}
	return p, nil
}

func (a *Attester) statement(w *word, cred *client.Credential, key [32]byte) (*proof.Statement, error) {
	m := w.inForce.Manifest
	hosts, err := a.hosts(m.Manifest)
	if err != nil {
		return nil, err
	}
	s := &proof.Statement{
		Schema: proof.StatementSchema, TrustDomain: m.Manifest.TrustDomain, Hosts: hosts, TLSKey: policy.DigestFrom(key),
		HPKE: proof.HPKE{
			KEM: a.hpke.PublicKey().KEM().ID(), KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES128GCM().ID(), PublicKey: a.hpke.PublicKey().Bytes(),
		},
		ReceiptKey: a.public, Certificate: policy.DigestOf(cred.TLS.Certificate[0]),
		Manifest: proof.Followed{Version: m.Manifest.Version, Digest: m.Digest}, Software: a.cfg.Software,
	}
	if list := w.inForce.DenyList; list != nil {
		s.DenyList = proof.Followed{Version: list.List.Version, Digest: list.Digest}
	}
	return s, nil
}

// hosts are those that this ingress serves and the manifest names.
func (a *Attester) hosts(m *policy.Manifest) ([]string, error) {
	hosts := m.IngressHosts()
	if a.cfg.Hosts != nil {
		hosts = slices.DeleteFunc(slices.Clone(a.cfg.Hosts()), func(host string) bool { return !named(m, hosts, host) })
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	if len(hosts) == 0 {
		return nil, attest.NewFailure(CodeNoHost, "a host that the manifest lists under ingress", "none", "add the hosts to the manifest's ingress, or routes for them")
	}
	return hosts, nil
}

// named reports whether the manifest has the host, or the very wildcard.
func named(m *policy.Manifest, all []string, host string) bool {
	if slices.Contains(all, host) {
		return true
	}
	_, d := m.IngressHost(host)
	return !strings.HasPrefix(host, "*.") && d.Allowed
}

func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// codeOf is the code of whatever kept a proof from being made.
func codeOf(err error) string {
	if code := proof.CodeOf(err); code != "" {
		return code
	}
	if refused := (*client.RefusedError)(nil); errors.As(err, &refused) {
		return refused.Code
	}
	if code := policy.CodeOf(err); code != "" {
		return string(code)
	}
	if errors.Is(err, errUnreachable) {
		return CodeUnreachable
	}
	return "internal"
}
