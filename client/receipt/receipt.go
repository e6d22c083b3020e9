// SPDX-License-Identifier: Apache-2.0

// Package receipt is the signed answer: what a receipt says is the very text
// that was signed, so that nobody who verifies it, now or years later, reads
// anything else out of it.
//
// It is a subset of HTTP Message Signatures (RFC 9421): Ed25519, the label
// "c8s", and always the same components in the same order. A signature over less
// would be none of an answer to this request by these pods. The package is pure:
// keys and clocks are passed in.
package receipt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// Schema is that of a receipt that is kept.
const Schema = "c8s.dev/receipt/v1"

// Codes of refusals; docs/receipts.md lists them.
const (
	CodeMissing   = "receipt-missing"   // the answer is not signed, or not for this request
	CodeMalformed = "receipt-malformed" // not in the one accepted form
	CodeFields    = "receipt-fields"    // the answer does not say who gave it
	CodeKey       = "receipt-key"       // of another key
	CodeNonce     = "receipt-nonce"     // of another request
	CodeTime      = "receipt-time"      // made too long ago, or in the future
	CodeSignature = "receipt-signature" // what was signed is something else
)

const (
	maxBase = 64 << 10 // bytes of what is signed: the request's path and query are most of it
	maxKept = 2*maxBase + 1<<10
)

// Receipt is what the ingress says about one answer. Nothing in it counts before
// Verify of the package or Check have accepted it.
type Receipt struct {
	Fields
	Status int
	Date   string // RFC 9110 section 5.6.7
	Digest string // Content-Digest of the answer (RFC 9530), if it had one: the pod's word

	Method, Authority, Path, Query string // of the request; Query begins with '?'
	RequestDigest                  string // Content-Digest of the request, if it had one: the client's own word

	Created   time.Time // by the ingress's clock, whole seconds
	KeyID     string    // KeyID of the key that signed
	Nonce     string    // as the request asked; may be empty
	Signature []byte    // Ed25519
}

// KeyID names a receipt key as operators' keys are named: "sha256:" and the
// SHA-256 of its SubjectPublicKeyInfo.
func KeyID(key ed25519.PublicKey) string {
	// RFC 8410 section 4: the encoding of all these keys begins alike.
	spki := append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, key...)
	return string(policy.DigestOf(spki))
}

// Check verifies a receipt, at any time and without its answer. Whose key it is,
// and that the mesh vouched for it then, is for the caller to know: the
// ingress's attestation of that time says so.
func (r *Receipt) Check(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return attest.NewFailure(CodeKey, "an Ed25519 key", fmt.Sprintf("%d bytes", len(key)), "")
	}
	if want := KeyID(key); r.KeyID != want {
		return attest.NewFailure(CodeKey, want, r.KeyID, "take the receiptKey of the attestation that was in force then")
	}
	base, err := r.Base()
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, base, r.Signature) {
		return attest.NewFailure(CodeSignature, "a signature over these values", "one over something else", "the answer or its receipt was changed on its way")
	}
	return nil
}

// kept is the form for files: what was signed, and the signature.
type kept struct {
	Schema    string `json:"schema"`
	Base      string `json:"base"`
	Signature []byte `json:"signature"`
}

// Encode writes the receipt for keeping.
func (r *Receipt) Encode() ([]byte, error) {
	base, err := r.Base()
	if err != nil {
		return nil, fmt.Errorf("encoding the receipt: %w", err)
	}
	text, err := onejson.Encode(&kept{Schema: Schema, Base: string(base), Signature: r.Signature})
	if err != nil {
		return nil, fmt.Errorf("encoding the receipt: %w", err)
	}
	return text, nil
}

// ParseReceipt reads a receipt that was kept. It does not verify it: Check does.
// Spaces between the members do not matter, anything else is as Encode writes it.
func ParseReceipt(text []byte) (*Receipt, error) {
	refuse := func(expected, actual string) (*Receipt, error) {
		return nil, attest.NewFailure(CodeMalformed, expected, actual, "keep receipts as they were written")
	}
	if len(text) > maxKept {
		return refuse(fmt.Sprintf("at most %d bytes", maxKept), fmt.Sprint(len(text)))
	}
	var k kept
	var compact bytes.Buffer
	err := json.Compact(&compact, text)
	if err == nil {
		err = onejson.Decode(compact.Bytes(), maxKept, &k)
	}
	switch {
	case err != nil:
		return refuse("schema, base and signature in their one spelling", err.Error())
	case k.Schema != Schema:
		return refuse("schema "+Schema, k.Schema)
	case len(k.Signature) != ed25519.SignatureSize:
		return refuse(fmt.Sprintf("a signature of %d bytes", ed25519.SignatureSize), fmt.Sprint(len(k.Signature)))
	}
	r, err := parseBase(k.Base)
	if err != nil {
		return nil, err
	}
	r.Signature = k.Signature
	return r, nil
}
