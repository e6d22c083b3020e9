// SPDX-License-Identifier: Apache-2.0

// Package handover moves a CDS's seed from one replica to another. Its
// invariant: what is wrapped can be read only by the process that made the key
// inside the evidence, and only if it knows the very TLS session and nonce the
// evidence answers.
//
// It also seals the seed for a machine's own disk, under a key that the TEE
// derives for this measurement (attest.Sealer).
package handover

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/internal/secret"
	"github.com/c8s-dev/c8s/cds/keys"
)

// Purpose is that of the joining replica's evidence.
const Purpose = "cds-join"

const (
	infoTag = "c8s/cds-handover/v1"
	// minNonce and minExporter are in bytes.
	minNonce    = 16
	minExporter = 32
	maxRoot     = 8 << 10 // bytes of the root's certificate
)

// The suite: X-Wing, so that a recorded hand-over stays closed to a quantum
// computer (draft-ietf-hpke-pq), HKDF-SHA-256 and ChaCha20-Poly1305.
func kem() hpke.KEM   { return hpke.MLKEM768X25519() }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.ChaCha20Poly1305() }

// Info is the HPKE context of one hand-over: the tag, the trust domain, the
// nonce of the giving replica and the TLS session's exporter, each preceded by
// its length in bytes as a big-endian uint64.
func Info(trustDomain string, nonce, exporter []byte) ([]byte, error) {
	if trustDomain == "" || len(nonce) < minNonce || len(exporter) < minExporter {
		return nil, fmt.Errorf("binding the hand-over: trust domain %q, nonce of %d bytes, exporter of %d; expected a name, at least %d and at least %d",
			trustDomain, len(nonce), len(exporter), minNonce, minExporter)
	}
	var b []byte
	for _, field := range [][]byte{[]byte(infoTag), []byte(trustDomain), nonce, exporter} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	return b, nil
}

// Transcript is what the joining replica's evidence commits to: its HPKE key,
// and its TLS key where it has one.
func Transcript(public, nonce, exporter, spkiHash []byte) attest.Transcript {
	hash := sha256.Sum256(public)
	return attest.Transcript{Purpose: Purpose, Nonce: nonce, Exporter: exporter, SPKIHash: spkiHash, HPKEHash: hash[:]}
}

// Recipient is the joining replica's side. Its key is born here and never
// leaves.
type Recipient struct {
	secret.Hidden
	key hpke.PrivateKey
}

// NewRecipient makes a key for one hand-over.
func NewRecipient() (*Recipient, error) {
	key, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making a key for the hand-over: %w", err)
	}
	return &Recipient{key: key}, nil
}

// PublicKey is what Wrap wants. Its hash is in the evidence.
func (r *Recipient) PublicKey() []byte { return r.key.PublicKey().Bytes() }

// Wrap seals the seed and the root's certificate to the public key. The caller
// has appraised evidence over Transcript(public, …) on the session of info.
func Wrap(public []byte, seed keys.Seed, rootDER, info []byte) (enc, ciphertext []byte, err error) {
	enc, ciphertext, err = wrap(public, seed, rootDER, info)
	if err != nil {
		return nil, nil, fmt.Errorf("handing the seed over: %w", err)
	}
	return enc, ciphertext, nil
}

func wrap(public []byte, seed keys.Seed, rootDER, info []byte) (enc, ciphertext []byte, err error) {
	if seed == (keys.Seed{}) || len(rootDER) == 0 || len(rootDER) > maxRoot || len(info) == 0 {
		return nil, nil, errors.New("the seed, the root or the context is missing or too large")
	}
	key, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the replica's key: %w", err)
	}
	enc, sender, err := hpke.NewSender(key, kdf(), aead(), info)
	if err != nil {
		return nil, nil, err
	}
	// The seed has one length, so the rest is the certificate.
	ciphertext, err = sender.Seal(nil, append(seed[:], rootDER...))
	return enc, ciphertext, err
}

// Open reads what Wrap sealed. That the root belongs to the seed is for
// ca.OpenRoot to find out.
func (r *Recipient) Open(info, enc, ciphertext []byte) (keys.Seed, []byte, error) {
	if len(info) == 0 {
		return keys.Seed{}, nil, errors.New("taking the seed over: the context is missing")
	}
	recipient, err := hpke.NewRecipient(enc, r.key, kdf(), aead(), info)
	if err != nil {
		return keys.Seed{}, nil, fmt.Errorf("taking the seed over: %w", err)
	}
	plain, err := recipient.Open(nil, ciphertext)
	if err != nil {
		return keys.Seed{}, nil, fmt.Errorf("taking the seed over: it is not sealed to this key and session: %w", err)
	}
	if n := len(plain) - len(keys.Seed{}); n <= 0 || n > maxRoot {
		return keys.Seed{}, nil, fmt.Errorf("taking the seed over: %d bytes, expected a seed and a certificate", len(plain))
	}
	return keys.Seed(plain[:len(keys.Seed{})]), plain[len(keys.Seed{}):], nil
}
