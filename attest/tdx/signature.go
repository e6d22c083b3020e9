// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"math/big"

	"github.com/c8s-dev/c8s/attest"
)

// VerifySignatures checks that the PCK of the chain signed the report of the
// quoting enclave, that this report vouches for the attestation key, and that
// the attestation key signed header and body, all as received. It says nothing
// about the chain: see Verify.
func (c *Chain) VerifySignatures(q *Quote) error {
	if len(q.key) != keySize {
		return attest.NewFailure(CodeQuoteFormat, "a quote as received", "one that was not parsed", "")
	}
	pck, err := publicKey(CodeChain, c.Leaf)
	if err != nil {
		return err
	}
	if !verifyP256(pck, q.qeReport, q.qeSigned) {
		return attest.NewFailure(CodeQEReport, "a signature by the PCK over the quoting enclave's report", "one that does not verify", "the quote was changed, or belongs to another PCK certificate")
	}
	if err := q.checkBinding(); err != nil {
		return err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.key...))
	if err != nil {
		return attest.NewFailure(CodeQuoteSignature, "an attestation key on P-256", err.Error(), "")
	}
	if !verifyP256(key, q.signed, q.signature) {
		return attest.NewFailure(CodeQuoteSignature, "a signature by the attestation key over header and body", "one that does not verify", "the quote was changed: fetch it again")
	}
	return nil
}

// checkBinding checks that the quoting enclave reports the hash of the
// attestation key and the authentication data, and nothing else.
func (q *Quote) checkBinding() error {
	h := sha256.New()
	h.Write(q.key)
	h.Write(q.auth)
	var want [64]byte
	h.Sum(want[:0])
	if subtle.ConstantTimeCompare(want[:], q.QE.ReportData[:]) != 1 {
		return attest.NewFailure(CodeQEBinding, fmt.Sprintf("%x in the report of the quoting enclave (the hash of the attestation key)", want), fmt.Sprintf("%x", q.QE.ReportData), "the quote was changed: fetch it again")
	}
	return nil
}

// verifyP256 checks a signature of r and s, 32 bytes each, big-endian.
func verifyP256(key *ecdsa.PublicKey, message, signature []byte) bool {
	if len(signature) != signatureSize {
		return false
	}
	digest := sha256.Sum256(message)
	r := new(big.Int).SetBytes(signature[:scalarSize])
	s := new(big.Int).SetBytes(signature[scalarSize:])
	return ecdsa.Verify(key, digest[:], r, s)
}
