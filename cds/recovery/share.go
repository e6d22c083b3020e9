// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"crypto/hpke"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"github.com/c8s-dev/c8s/cds/internal/secret"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// PrivateKey is an operator's recovery key. It prints as nothing; Bytes is for
// the file it is kept in.
type PrivateKey struct {
	secret.Hidden
	bytes [32]byte
}

// NewRecoveryKey makes a key for an operator, who gives the public one to the
// CDS and keeps the other offline.
func NewRecoveryKey() (private PrivateKey, public [32]byte, err error) {
	key, err := kem().GenerateKey()
	if err != nil {
		return PrivateKey{}, public, fmt.Errorf("making a recovery key: %w", err)
	}
	b, err := key.Bytes()
	if err != nil {
		return PrivateKey{}, public, fmt.Errorf("making a recovery key: %w", err)
	}
	return PrivateKey{bytes: [32]byte(b)}, [32]byte(key.PublicKey().Bytes()), nil
}

// PrivateKeyFrom reads what Bytes wrote.
func PrivateKeyFrom(b []byte) (PrivateKey, error) {
	k := PrivateKey{}
	if len(b) != len(k.bytes) {
		return k, fmt.Errorf("reading a recovery key: %d bytes, expected %d", len(b), len(k.bytes))
	}
	copy(k.bytes[:], b)
	_, err := k.Public()
	return k, err
}

// Bytes is the key itself.
func (k PrivateKey) Bytes() []byte { return k.bytes[:] }

// Public is what a Recipient has.
func (k PrivateKey) Public() ([32]byte, error) {
	key, err := kem().NewPrivateKey(k.bytes[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("reading a recovery key: %w", err)
	}
	return [32]byte(key.PublicKey().Bytes()), nil
}

// Share is one operator's part, opened. It is sent to a CDS whose evidence the
// operator has appraised, on that very connection, and kept nowhere.
type Share struct {
	secret.Hidden
	Name     string
	Document policy.Digest // that it was opened from
	value    [scalarSize]byte
}

// ShareSchema is the only share schema this package reads.
const ShareSchema = "c8s.dev/cds-recovery-share/v1"

const maxShare = 1 << 10 // bytes

type shareWire struct {
	Schema   string        `json:"schema"`
	Document policy.Digest `json:"document"`
	Name     string        `json:"name"`
	Value    []byte        `json:"value"`
}

// Encode writes the share, for the connection.
func (s Share) Encode() ([]byte, error) {
	return onejson.Encode(shareWire{Schema: ShareSchema, Document: s.Document, Name: s.Name, Value: s.value[:]})
}

// ParseShare reads what Encode wrote. Whether it is a good share is
// Collector.Add's to say. The error holds nothing of it.
func ParseShare(text []byte) (Share, error) {
	var w shareWire
	err := onejson.Decode(text, maxShare, &w)
	if err != nil || w.Schema != ShareSchema || !w.Document.Valid() || !isName(w.Name) || len(w.Value) != scalarSize {
		return Share{}, errors.New("parsing a recovery share: it is not one in its canonical encoding")
	}
	return Share{Name: w.Name, Document: w.Document, value: [scalarSize]byte(w.Value)}, nil
}

// OpenShare opens the operator's share and checks that it is the one committed
// to. The document is the operator's own copy, or has the digest he kept: a CDS
// takes no shares of another.
func OpenShare(d *Document, name string, private PrivateKey) (Share, error) {
	s, err := openShare(d, name, private)
	if err != nil {
		return Share{}, fmt.Errorf("opening the recovery share: %w", err)
	}
	return s, nil
}

func openShare(d *Document, name string, private PrivateKey) (Share, error) {
	digest := d.Digest()
	if digest == "" {
		return Share{}, errors.New("the document is not well-formed: parse it first")
	}
	index, err := d.index(name)
	if err != nil {
		return Share{}, err
	}
	sealed := d.Shares[index-1]
	if public, err := private.Public(); err != nil || string(public[:]) != string(sealed.Public) {
		return Share{}, fmt.Errorf("the recovery key is not the one %q gave: expected the key whose public half the document holds", name)
	}
	info, err := d.shareInfo(index)
	if err != nil {
		return Share{}, err
	}
	key, err := kem().NewPrivateKey(private.bytes[:])
	if err != nil {
		return Share{}, err
	}
	recipient, err := hpke.NewRecipient(sealed.Enc, key, kdf(), aead(), info)
	if err != nil {
		return Share{}, err
	}
	plain, err := recipient.Open(nil, sealed.Sealed)
	if err != nil || len(plain) != scalarSize {
		return Share{}, errors.New("the sealed share or the document around it was changed")
	}
	s := Share{Name: name, Document: digest, value: [scalarSize]byte(plain)}
	_, err = d.verify(s)
	return s, err
}

// BadShareError says whose share is wrong.
type BadShareError struct{ Name, Reason string }

func (e *BadShareError) Error() string {
	return fmt.Sprintf("the recovery share of %q is refused: %s", e.Name, e.Reason)
}

// verify holds a share against the commitments.
func (d *Document) verify(s Share) (secretsharing.Share, error) {
	var none secretsharing.Share
	if s.Document != d.Digest() {
		return none, &BadShareError{s.Name, fmt.Sprintf("it is of document %q, expected %q: find out which of the two was made with your operators", s.Document, d.Digest())}
	}
	index, err := d.index(s.Name)
	if err != nil {
		return none, &BadShareError{s.Name, err.Error()}
	}
	value, err := scalarOf(s.value[:])
	if err != nil {
		return none, &BadShareError{s.Name, err.Error()}
	}
	commitment, err := d.commitment()
	if err != nil {
		return none, err
	}
	share := secretsharing.Share{ID: p256().NewScalar().SetUint64(uint64(index)), Value: value} //nolint:gosec // from 1
	if !secretsharing.Verify(uint(d.Threshold-1), share, commitment) {                          //nolint:gosec // from 1
		return none, &BadShareError{s.Name, "it is not the share the document commits to"}
	}
	return share, nil
}

func scalarOf(b []byte) (group.Scalar, error) {
	s := p256().NewScalar()
	if s.UnmarshalBinary(b) != nil {
		return nil, errors.New("it is not a number below the order of P-256")
	}
	return s, nil
}
