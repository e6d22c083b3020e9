// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// proofSchema is the only schema of proofs that this program reads.
const proofSchema = "c8s.dev/log-proof/v1"

const (
	maxProof       = 512 << 10 // bytes
	maxProofHashes = 64
	maxCertificate = 1 << 20
)

// proof says that a log has an entry. It needs nothing else to be checked, but
// whose log it is.
type proof struct {
	Schema     string   `json:"schema"` // proofSchema
	Log        string   `json:"log"`    // C2SP verifier key; compared with the one that is trusted
	Index      int64    `json:"index"`
	Entry      string   `json:"entry"`      // as logged
	Hashes     [][]byte `json:"hashes"`     // from the leaf to the root, RFC 6962 section 2.1.1
	Checkpoint string   `json:"checkpoint"` // signed note
}

func newProof(key string, index int64, entry []byte, hashes []translog.Hash, checkpoint []byte) *proof {
	p := &proof{Schema: proofSchema, Log: key, Index: index, Entry: string(entry), Hashes: [][]byte{}, Checkpoint: string(checkpoint)}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, h[:])
	}
	return p
}

// parseProof reads a proof, and believes nothing of it.
func parseProof(raw []byte) (*proof, error) {
	if len(raw) > maxProof {
		return nil, fmt.Errorf("reading the proof: more than %d bytes", maxProof)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	p := &proof{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("reading the proof: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading the proof: something follows it")
	}
	if p.Schema != proofSchema {
		return nil, fmt.Errorf("reading the proof: schema %.64q, expected %q", p.Schema, proofSchema)
	}
	if p.Index < 0 || len(p.Hashes) > maxProofHashes {
		return nil, fmt.Errorf("reading the proof: index %d and %d hashes, expected an index from 0 and at most %d hashes", p.Index, len(p.Hashes), maxProofHashes)
	}
	for i, h := range p.Hashes {
		if len(h) != sha256.Size {
			return nil, fmt.Errorf("reading the proof: hash %d has %d bytes, expected %d", i, len(h), sha256.Size)
		}
	}
	return p, nil
}

// proven is what a proof shows.
type proven struct {
	Index       int64         `json:"index"`
	Certificate policy.Digest `json:"certificate"`
	Type        translog.Type `json:"type"`
	Role        policy.Role   `json:"role,omitempty"`
	Time        time.Time     `json:"time"` // when it was logged
	Manifest    policy.Digest `json:"manifest,omitempty"`
	Evidence    policy.Digest `json:"evidence"`
	Size        int64         `json:"logSize"` // of the checkpoint
	Witnesses   []string      `json:"witnesses"`
	Quorum      int           `json:"quorum"`
	by          []translog.Cosignature
}

// check accepts a proof that the log with this key has logged the certificate.
// chain has the certificate, and its issuer if that is known.
func (p *proof) check(verifier note.Verifier, chain []*x509.Certificate, m *policy.Manifest) (*proven, error) {
	checkpoint, err := translog.OpenCheckpoint([]byte(p.Checkpoint), verifier.Name(), verifier)
	if err != nil {
		return nil, err
	}
	hashes := make([]translog.Hash, len(p.Hashes))
	for i, h := range p.Hashes {
		hashes[i] = translog.Hash(h)
	}
	if err := translog.VerifyInclusion([]byte(p.Entry), p.Index, *checkpoint, hashes); err != nil {
		return nil, err
	}
	e, err := translog.ParseEntry([]byte(p.Entry))
	if err != nil {
		return nil, err
	}
	if err := about(e, chain); err != nil {
		return nil, err
	}
	witnesses, err := client.Witnesses(m)
	if err != nil {
		return nil, err
	}
	out := &proven{
		Index: p.Index, Certificate: e.Certificate, Type: e.Type, Role: e.Role, Time: e.Time, Manifest: e.Manifest, Evidence: e.Evidence,
		Size: checkpoint.Size, Witnesses: []string{}, by: translog.Cosignatures([]byte(p.Checkpoint), witnesses),
	}
	for _, by := range out.by {
		out.Witnesses = append(out.Witnesses, by.Name)
	}
	if m != nil {
		out.Quorum = m.WitnessQuorum
	}
	return out, nil
}

// about compares an entry with the certificate it should be about.
func about(e *translog.Entry, chain []*x509.Certificate) error {
	leaf := chain[0]
	want := func(what string, expected, actual any) error {
		return fmt.Errorf("the log's entry is about something else: %s is %v, the certificate's is %v", what, actual, expected)
	}
	switch {
	case e.Type != translog.TypeIssuance && e.Type != translog.TypeIntermediate:
		return want("its type", "issuance or intermediate", e.Type)
	case e.Certificate != policy.DigestOf(leaf.Raw):
		return want("its certificate", policy.DigestOf(leaf.Raw), e.Certificate)
	case len(chain) > 1 && e.Issuer != policy.DigestOf(chain[1].Raw):
		return want("its issuer", policy.DigestOf(chain[1].Raw), e.Issuer)
	case !e.NotAfter.Equal(leaf.NotAfter):
		return want("its end", stamp(leaf.NotAfter), stamp(e.NotAfter))
	}
	return nil
}

// parseChain reads certificates, PEM or one in DER.
func parseChain(raw []byte) ([]*x509.Certificate, error) {
	var ders [][]byte
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		}
	}
	if ders == nil {
		ders = [][]byte{raw}
	}
	var chain []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("it holds no certificate, in PEM or DER: %w", err)
		}
		chain = append(chain, cert)
	}
	return chain, nil
}
