// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Caps on an envelope.
const (
	MaxEnvelope   = 2 << 20 // bytes
	maxSignatures = 64
	maxSignature  = 256 // bytes of one
	maxKeyID      = 256
)

// Envelope is a DSSE v1 envelope
// (github.com/secure-systems-lab/dsse, envelope.md).
type Envelope struct {
	PayloadType string
	Payload     []byte
	Signatures  []Signature
}

// Signature is one signature over the envelope's pre-authentication encoding.
type Signature struct {
	KeyID string // "sha256:" of the key's SubjectPublicKeyInfo; may be empty
	Sig   []byte
}

// IgnoredSignature did not count, for the reason given.
type IgnoredSignature struct {
	KeyID  string `json:"keyid"`
	Reason string `json:"reason"`
}

// preAuth is the DSSE pre-authentication encoding: what is really signed. The
// lengths make it unambiguous.
func preAuth(payloadType string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// ParseEnvelope reads an envelope without judging its signatures. As DSSE
// asks, unknown fields are ignored and either base64 alphabet is read.
func ParseEnvelope(text []byte) (*Envelope, error) { return ParseEnvelopeOf(text, MaxEnvelope) }

// ParseEnvelopeOf is ParseEnvelope for payloads that may be larger.
func ParseEnvelopeOf(text []byte, limit int) (*Envelope, error) {
	r := &report{}
	e := readEnvelope(parseTree(text, limit, r), r)
	if err := r.err("reading the envelope"); err != nil {
		return nil, err
	}
	return e, nil
}

func readEnvelope(root *node, r *report) *Envelope {
	if root == nil {
		return nil
	}
	f := object(root, "$", r)
	f.lax = true
	e := &Envelope{PayloadType: f.text("payloadType"), Payload: f.base64("payload")}
	f.list("signatures", func(n *node, path string) {
		if len(e.Signatures) >= maxSignatures {
			return // counted below
		}
		s := object(n, path, r)
		sig := Signature{Sig: s.base64("sig")}
		if s.has("keyid") {
			sig.KeyID = s.text("keyid")
		}
		if len(sig.Sig) > maxSignature || len(sig.KeyID) > maxKeyID {
			r.add(CodeSignatures, path, fmt.Sprintf("a signature of at most %d bytes and a keyid of at most %d", maxSignature, maxKeyID), "a longer one", "")
		}
		e.Signatures = append(e.Signatures, sig)
	})
	if f.node == nil {
		return e
	}
	if i := slices.Index(f.node.keys, "signatures"); i >= 0 && f.node.values[i].kind == kindArray {
		if n := len(f.node.values[i].values); n == 0 || n > maxSignatures {
			r.add(CodeSignatures, "$.signatures", fmt.Sprintf("1 to %d signatures", maxSignatures), strconv.Itoa(n), "sign with 'c8s manifest sign'")
		}
	}
	return e
}

func (f *fields) base64(key string) []byte {
	n, path := f.get(key, "a base64 string")
	s := text(n, path, f.report)
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		if b, err := enc.Strict().DecodeString(s); err == nil {
			return b
		}
	}
	f.report.add(CodeBase64, path, "padded base64", quote(s), "")
	return nil
}

// Encode writes the envelope as JSON.
func (e *Envelope) Encode() ([]byte, error) {
	type signature struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	out := struct {
		PayloadType string      `json:"payloadType"`
		Payload     []byte      `json:"payload"`
		Signatures  []signature `json:"signatures"`
	}{PayloadType: e.PayloadType, Payload: e.Payload, Signatures: []signature{}}
	for _, s := range e.Signatures {
		out.Signatures = append(out.Signatures, signature(s))
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the envelope: %w", err)
	}
	return append(text, '\n'), nil
}

func (e *Envelope) sign(key crypto.Signer) error {
	algorithm, err := algorithmOf(key.Public())
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	message, opts := preAuth(e.PayloadType, e.Payload), crypto.SignerOpts(crypto.Hash(0))
	if algorithm == AlgorithmECDSAP256 {
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return err
	}
	id := string(DigestOf(der))
	e.Signatures = slices.DeleteFunc(e.Signatures, func(s Signature) bool { return s.KeyID == id })
	e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: sig})
	return nil
}

func verifySignature(public crypto.PublicKey, message, sig []byte) bool {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(k, sum[:], sig)
	}
	return false
}

// verify counts the distinct trusted keys with a good signature.
func (e *Envelope) verify(trusted Operators) ([]string, []IgnoredSignature, Decision) {
	if err := trusted.Validate(); err != nil {
		return nil, nil, Decision{Code: CodeOperatorKeyInvalid, Rule: "the trusted operators", Expected: "valid keys and threshold", Actual: err.Error()}
	}
	message := preAuth(e.PayloadType, e.Payload)
	var signers []string
	used := make([]bool, len(e.Signatures))
	claimed := make([]bool, len(e.Signatures))
	for _, k := range trusted.Keys {
		public, der, err := k.decode()
		if err != nil {
			continue // Validate has refused this
		}
		id, signed := string(DigestOf(der)), false
		for i, s := range e.Signatures {
			// A keyid is a hint. Without one every key is tried.
			if s.KeyID != id && s.KeyID != "" {
				continue
			}
			claimed[i] = claimed[i] || s.KeyID == id
			if verifySignature(public, message, s.Sig) {
				used[i], signed = true, true
			}
		}
		if signed {
			signers = append(signers, k.Name)
		}
	}
	ignored := ignoredSignatures(e.Signatures, used, claimed)
	if len(signers) < trusted.Threshold {
		return signers, ignored, thresholdUnmet(trusted, signers, ignored)
	}
	return signers, ignored, allow("operators")
}

func ignoredSignatures(all []Signature, used, claimed []bool) []IgnoredSignature {
	var ignored []IgnoredSignature
	for i, s := range all {
		switch {
		case used[i]:
		case claimed[i]:
			ignored = append(ignored, IgnoredSignature{KeyID: s.KeyID, Reason: "does not verify under this operator's key"})
		default:
			ignored = append(ignored, IgnoredSignature{KeyID: s.KeyID, Reason: "not the key of a trusted operator"})
		}
	}
	return ignored
}

func thresholdUnmet(trusted Operators, signers []string, ignored []IgnoredSignature) Decision {
	actual := fmt.Sprintf("%d: %q", len(signers), signers)
	for _, i := range ignored {
		actual += fmt.Sprintf("; ignored keyid %s: %s", quote(i.KeyID), i.Reason)
	}
	return Decision{
		Code: CodeThresholdUnmet, Rule: "operators.threshold",
		Expected: fmt.Sprintf("signatures of %d of the %d trusted operators", trusted.Threshold, len(trusted.Keys)),
		Actual:   actual, Remedy: "have more operators run 'c8s manifest sign'",
	}
}
