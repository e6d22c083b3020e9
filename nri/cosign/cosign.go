// SPDX-License-Identifier: Apache-2.0

// Package cosign tells which of the operators' publishers signed a container
// image, and keeps this invariant: a signature counts only if one of the given
// keys made it over this very manifest digest. Where signatures come from (a
// registry, the node's content store, an attacker) makes no difference.
//
// Both formats of the cosign tool for signatures by a key are read: the payload
// of cosign's SIGNATURE_SPEC.md under the tag sha256-<digest>.sig, and the
// Sigstore bundle of BUNDLE_SPEC.md as a referrer of the image. Certificates and
// the public transparency log are not: an entry trusts keys that its operators
// named.
package cosign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

// Key is a publisher's.
type Key struct {
	ID     policy.Digest    // policy.Signer's ID
	Public crypto.PublicKey // ed25519.PublicKey or *ecdsa.PublicKey on P-256
}

// Signature is one signature as it was found: nothing about it is checked yet.
type Signature struct {
	Payload   []byte // what was signed, or a whole bundle
	Signature []byte // over Payload; empty for a bundle
	Bundle    bool
}

// Claim is what a verified signature says.
type Claim struct {
	Signer     policy.Digest // ID of the key
	Manifest   policy.Digest // what was signed
	Repository string        // where the publisher said it belongs, without a tag; empty if it did not say
}

// ErrNoKey is returned for a signature by none of the keys.
var ErrNoKey = errors.New("none of the manifest's signers made this signature")

// maxPayload bounds what is read of one signature, in bytes.
const maxPayload = 256 << 10

// Verify checks one signature against keys and returns what it claims.
func Verify(s Signature, keys []Key) (Claim, error) {
	if len(s.Payload) > maxPayload {
		return Claim{}, fmt.Errorf("verifying an image signature: %d bytes, at most %d allowed", len(s.Payload), maxPayload)
	}
	message, signatures, read := s.Payload, [][]byte{s.Signature}, readSimple
	if s.Bundle {
		envelope, err := parseBundle(s.Payload)
		if err != nil {
			return Claim{}, fmt.Errorf("reading a signature bundle: %w", err)
		}
		message, signatures = envelope.message(), envelope.signatures
		read = func([]byte) (Claim, error) { return readStatement(envelope.payload) }
	}
	for _, key := range keys {
		for _, sig := range signatures {
			if !signedBy(key.Public, message, sig) {
				continue
			}
			claim, err := read(message)
			if err != nil {
				return Claim{}, fmt.Errorf("reading what %s signed: %w", key.ID, err)
			}
			claim.Signer = key.ID
			return claim, nil
		}
	}
	return Claim{}, ErrNoKey
}

// signedBy reports whether public made sig over message: ECDSA with SHA-256 in
// ASN.1, or plain Ed25519, as cosign does.
func signedBy(public crypto.PublicKey, message, sig []byte) bool {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(k, sum[:], sig)
	}
	return false
}
