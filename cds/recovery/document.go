// SPDX-License-Identifier: Apache-2.0

// Package recovery brings a trust domain's seed back when every replica is
// gone: any k of n operators can, k-1 learn nothing. Its invariant: what comes
// out is the seed that went in, or an error that names whose share was wrong.
//
// The seed is sealed under a key made of a random P-256 scalar. The scalar is
// shared (Shamir), each share is committed to (Feldman) and sealed to its
// operator's recovery key (HPKE). The document holds all of that; it is public.
package recovery

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// Schema is the only document schema this package reads.
const Schema = "c8s.dev/cds-recovery/v1"

// MaxRecipients is the number of operators that a document can have.
const MaxRecipients = 64

const (
	maxDocument = 64 << 10 // bytes
	maxName     = 63
	scalarSize  = 32
	pointSize   = 33 // compressed
	publicSize  = 32 // X25519; an encapsulated key has the same
	sealedShare = scalarSize + chacha20poly1305.Overhead
	sealedSeed  = chacha20poly1305.NonceSizeX + len(keys.Seed{}) + chacha20poly1305.Overhead

	shareTag = "c8s/cds-recovery-share/v1"
	seedTag  = "c8s/cds-recovery-seed/v1"
)

func p256() group.Group { return group.P256 }

// Document is what is kept for the day of the recovery. Whoever recovers must
// know that it is the one that was made: the operators keep a copy or its
// digest, since a stranger can make another with a seed of his own.
type Document struct {
	Schema      string        `json:"schema"` // Schema
	TrustDomain string        `json:"trustDomain"`
	Threshold   int           `json:"threshold"`
	Commitments [][]byte      `json:"commitments"` // to the polynomial's coefficients; compressed points
	Shares      []SealedShare `json:"shares"`
	Seed        []byte        `json:"seed"` // nonce and XChaCha20-Poly1305 under the scalar's key
}

// SealedShare is one operator's.
type SealedShare struct {
	Name   string `json:"name"`
	Public []byte `json:"public"` // the operator's recovery key, X25519
	Enc    []byte `json:"enc"`    // HPKE's encapsulated key
	Sealed []byte `json:"sealed"` // the share
}

// Parse reads a document in its canonical encoding.
func Parse(text []byte) (*Document, error) {
	d := &Document{}
	if err := onejson.Decode(text, maxDocument, d); err != nil {
		return nil, fmt.Errorf("parsing the recovery document: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("parsing the recovery document: %w", err)
	}
	return d, nil
}

// Encode writes the document's one encoding.
func (d *Document) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("encoding the recovery document: %w", err)
	}
	return onejson.Encode(d)
}

// Digest identifies the document: the SHA-256 of its encoding. It is empty for
// a document that Parse would refuse.
func (d *Document) Digest() policy.Digest {
	text, err := d.Encode()
	if err != nil {
		return ""
	}
	return policy.DigestOf(text)
}

func (d *Document) check() error {
	if d.Schema != Schema {
		return fmt.Errorf("schema %.64q, expected %q", d.Schema, Schema)
	}
	if td, err := spiffeid.TrustDomainFromString(d.TrustDomain); err != nil || td.Name() != d.TrustDomain {
		return fmt.Errorf("%.64q is not the name of a trust domain", d.TrustDomain)
	}
	recipients := make([]Recipient, 0, len(d.Shares))
	for i, s := range d.Shares {
		if len(s.Public) != publicSize || len(s.Enc) != publicSize || len(s.Sealed) != sealedShare {
			return fmt.Errorf("share %d has parts of %d, %d and %d bytes, expected %d, %d and %d", i+1, len(s.Public), len(s.Enc), len(s.Sealed), publicSize, publicSize, sealedShare)
		}
		recipients = append(recipients, Recipient{Name: s.Name, Public: [32]byte(s.Public)})
	}
	if err := checkRecipients(d.Threshold, recipients); err != nil {
		return err
	}
	if len(d.Commitments) != d.Threshold {
		return fmt.Errorf("%d commitments, expected one for each of the %d shares needed", len(d.Commitments), d.Threshold)
	}
	if _, err := d.commitment(); err != nil {
		return err
	}
	if len(d.Seed) != sealedSeed {
		return fmt.Errorf("a sealed seed of %d bytes, expected %d", len(d.Seed), sealedSeed)
	}
	return nil
}

// Recipient is an operator who gets a share.
type Recipient struct {
	Name   string
	Public [32]byte // X25519, of NewRecoveryKey
}

func checkRecipients(threshold int, list []Recipient) error {
	if threshold < 1 || threshold > len(list) || len(list) > MaxRecipients {
		return fmt.Errorf("%d of %d shares, expected at least one and at most all of up to %d", threshold, len(list), MaxRecipients)
	}
	names, publics := map[string]bool{}, map[[32]byte]bool{}
	for _, r := range list {
		if !isName(r.Name) || names[r.Name] {
			return fmt.Errorf("an operator named %.64q, expected a name of 1 to %d printable ASCII characters, once", r.Name, maxName)
		}
		// One key with two shares would count as two operators.
		if publics[r.Public] {
			return fmt.Errorf("the recovery key of %q is also another's", r.Name)
		}
		names[r.Name], publics[r.Public] = true, true
	}
	return nil
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// commitment reads the commitments.
func (d *Document) commitment() (secretsharing.SecretCommitment, error) {
	var c secretsharing.SecretCommitment
	for i, b := range d.Commitments {
		e := p256().NewElement()
		if len(b) != pointSize || e.UnmarshalBinary(b) != nil || e.IsIdentity() {
			return nil, fmt.Errorf("commitment %d is not a compressed point of P-256", i+1)
		}
		c = append(c, e)
	}
	return c, nil
}

// index returns the number of the operator's share, from 1.
func (d *Document) index(name string) (int, error) {
	for i, s := range d.Shares {
		if s.Name == name {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("no share for an operator named %.64q", name)
}

// shareInfo is the HPKE context of a share: the tag, a zero byte, its number as
// a big-endian uint32, and the SHA-256 of the document without what is sealed.
func (d *Document) shareInfo(index int) ([]byte, error) {
	bare := *d
	bare.Seed = []byte{}
	bare.Shares = make([]SealedShare, 0, len(d.Shares))
	for _, s := range d.Shares {
		bare.Shares = append(bare.Shares, SealedShare{Name: s.Name, Public: s.Public, Enc: []byte{}, Sealed: []byte{}})
	}
	text, err := onejson.Encode(bare)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	info := append([]byte(shareTag), 0)
	info = binary.BigEndian.AppendUint32(info, uint32(index)) //nolint:gosec // at most MaxRecipients
	return append(info, sum[:]...), nil
}

// seedData is what the sealed seed is bound to: the document without it.
func (d *Document) seedData() ([]byte, error) {
	bare := *d
	bare.Seed = []byte{}
	text, err := onejson.Encode(bare)
	return append(append([]byte(seedTag), 0), text...), err
}

func kem() hpke.KEM   { return hpke.DHKEM(ecdh.X25519()) }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.ChaCha20Poly1305() }

var errNoSeed = errors.New("there is no seed")
