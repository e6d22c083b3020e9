// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"math/big"

	"github.com/c8s-dev/c8s/attest"
)

const scalarSize = 32

// VerifyQE checks that the platform's PCK signed the quoting enclave's report.
// It says nothing about the PCK: see Chain.Verify.
func (q *Quote) VerifyQE(c *Chain) error {
	key, err := p256(c.Leaf)
	if err != nil {
		return err
	}
	if !verify(key, q.qeReport, q.qeSignature) {
		return attest.NewFailure(CodeQESignature, "a signature by the PCK over the quoting enclave's report", "one that does not verify", "the quote was changed: ask for a new one")
	}
	return nil
}

// CheckBinding checks that the quoting enclave vouches for the attestation key:
// its report data is SHA-256 over the key and the authentication data, and 32
// bytes of zero.
func (q *Quote) CheckBinding() error {
	var want [64]byte
	sum := sha256.Sum256(q.qeAuthenticated)
	copy(want[:], sum[:])
	if q.QE.ReportData != want {
		return attest.NewFailure(CodeQEBinding, hex.EncodeToString(want[:]), hex.EncodeToString(q.QE.ReportData[:]), "the quote was changed: ask for a new one")
	}
	return nil
}

// VerifySignature checks the attestation key's signature over the bytes of
// header and body as received.
func (q *Quote) VerifySignature() error {
	const uncompressed = 4
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{uncompressed}, q.AttestationKey[:]...))
	if err != nil { // not a point on the curve
		return attest.NewFailure(CodeSignature, "an attestation key on P-256", err.Error(), "")
	}
	if !verify(key, q.signed, q.signature) {
		return attest.NewFailure(CodeSignature, "a signature by the attestation key over the quote", "one that does not verify", "the quote was changed: ask for a new one")
	}
	return nil
}

// verify takes r and s as 32 big-endian bytes each.
func verify(key *ecdsa.PublicKey, message, signature []byte) bool {
	if len(signature) != 2*scalarSize {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:scalarSize]), new(big.Int).SetBytes(signature[scalarSize:]))
}
