// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"encoding/json"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/internal/onejson"
)

// Caps on what an attestation may hold.
const (
	maxCertificate = 16 << 10 // bytes of one certificate's DER
	maxInclusion   = 64       // hashes: a log of 2^64 entries
	maxBeacon      = 2 << 10
	maxEntry       = 4 << 10
	// MaxAttestation bounds the document, in bytes: a record and two
	// certificates in base64, the texts as they are, and what is around them.
	MaxAttestation = attest.MaxCMW*4/3 + 2*maxCertificate*4/3 + maxStatement + translog.MaxNote + 64*maxInclusion + maxBeacon + maxEntry + 4<<10
)

// Attestation is the proof of an ingress for one TLS key.
type Attestation struct {
	Schema    string          `json:"schema"` // AttestationSchema
	Statement Statement       `json:"statement"`
	Evidence  []byte          `json:"evidence"` // CMW record in CBOR
	Beacon    json.RawMessage `json:"beacon"`   // the CDS's document
	Nonce     []byte          `json:"nonce"`    // empty, or MinNonce to MaxNonce bytes
	Chain     [][]byte        `json:"chain"`    // DER: the mesh certificate and its issuer
	Receipt   Receipt         `json:"receipt"`
}

// Receipt shows that the mesh certificate is in the CDS's log.
type Receipt struct {
	Entry      json.RawMessage `json:"entry"` // of the log, as it is there
	Index      int64           `json:"index"`
	Proof      [][]byte        `json:"proof"`      // inclusion, RFC 6962 section 2.1.1
	Checkpoint string          `json:"checkpoint"` // signed note
}

// ParseAttestation reads an attestation in its canonical encoding, and believes
// nothing of it.
func ParseAttestation(text []byte) (*Attestation, error) {
	a := &Attestation{}
	err := onejson.Decode(text, MaxAttestation, a)
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, malformed("an attestation", err)
	}
	return a, nil
}

// Encode writes the attestation's one encoding. It refuses what
// ParseAttestation would refuse.
func (a *Attestation) Encode() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("encoding an attestation: %w", err)
	}
	text, err := onejson.Encode(a)
	if err == nil && len(text) > MaxAttestation {
		err = fmt.Errorf("%d bytes, at most %d allowed", len(text), MaxAttestation)
	}
	if err == nil {
		// Beacon and entry are texts that are put in as they are.
		err = onejson.Decode(text, MaxAttestation, &Attestation{})
	}
	if err != nil {
		return nil, fmt.Errorf("encoding an attestation: %w", err)
	}
	return text, nil
}

func (a *Attestation) check() error {
	if a.Schema != AttestationSchema {
		return fmt.Errorf("schema %.64q, expected %q", a.Schema, AttestationSchema)
	}
	if err := a.Statement.check(); err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	if n := len(a.Evidence); n == 0 || n > attest.MaxCMW {
		return fmt.Errorf("evidence of %d bytes, expected 1 to %d", n, attest.MaxCMW)
	}
	if len(a.Beacon) > maxBeacon {
		return fmt.Errorf("a beacon of %d bytes, at most %d accepted", len(a.Beacon), maxBeacon)
	}
	if _, err := beacon.Parse(a.Beacon); err != nil {
		return err
	}
	if n := len(a.Nonce); a.Nonce == nil || n != 0 && (n < MinNonce || n > MaxNonce) {
		return fmt.Errorf("a nonce of %d bytes, expected %d to %d, or none", n, MinNonce, MaxNonce)
	}
	if len(a.Chain) != 2 {
		return fmt.Errorf("%d certificates, expected the leaf and its issuer", len(a.Chain))
	}
	for i, der := range a.Chain {
		if len(der) == 0 || len(der) > maxCertificate {
			return fmt.Errorf("certificate %d of %d bytes, expected 1 to %d", i, len(der), maxCertificate)
		}
	}
	return a.Receipt.check()
}

func (r *Receipt) check() error {
	if len(r.Entry) > maxEntry {
		return fmt.Errorf("a log entry of %d bytes, at most %d accepted", len(r.Entry), maxEntry)
	}
	if _, err := translog.ParseEntry(r.Entry); err != nil {
		return err
	}
	if r.Index < 0 {
		return fmt.Errorf("log entry %d, expected 0 or more", r.Index)
	}
	if r.Proof == nil || len(r.Proof) > maxInclusion {
		return fmt.Errorf("%d hashes in the inclusion proof, expected at most %d", len(r.Proof), maxInclusion)
	}
	for i, h := range r.Proof {
		if len(h) != len(translog.Hash{}) {
			return fmt.Errorf("hash %d of the inclusion proof has %d bytes, expected %d", i, len(h), len(translog.Hash{}))
		}
	}
	if len(r.Checkpoint) == 0 || len(r.Checkpoint) > translog.MaxNote {
		return fmt.Errorf("a checkpoint of %d bytes, expected 1 to %d", len(r.Checkpoint), translog.MaxNote)
	}
	return nil
}
