// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto"
	"fmt"
	"slices"
	"strconv"
)

// Signed is a manifest whose signatures were checked.
type Signed struct {
	Manifest *Manifest
	Payload  []byte // exactly as signed
	Digest   Digest // of Payload
	Envelope []byte // as received
	Signers  []string
	Ignored  []IgnoredSignature
}

// Open checks an envelope: enough of the trusted operators signed it, and the
// payload is a valid manifest. Signatures come first, so that nothing of an
// unsigned payload is interpreted.
func Open(envelope []byte, trusted Operators) (*Signed, error) {
	p, err := manifestFormat().open(envelope, trusted)
	if err != nil {
		return nil, err
	}
	m, err := Parse(p.Payload)
	if err != nil {
		return nil, err
	}
	return &Signed{
		Manifest: m, Payload: p.Payload, Digest: m.Digest(), Envelope: slices.Clone(envelope),
		Signers: p.Signers, Ignored: p.Ignored,
	}, nil
}

// Sign wraps a manifest's payload in an envelope with one signature for each
// key (Ed25519 or ECDSA P-256). It refuses to sign what Parse refuses.
func Sign(payload []byte, keys ...crypto.Signer) ([]byte, error) {
	return manifestFormat().sign(payload, keys)
}

// AddSignature adds signatures to an envelope made by Sign or SignDenyList.
// Signing again with the same key replaces its signature.
func AddSignature(envelope []byte, keys ...crypto.Signer) ([]byte, error) {
	e, err := ParseEnvelopeOf(envelope, MaxDenyListEnvelope)
	if err != nil {
		return nil, err
	}
	f, ok := formatOf(e.PayloadType)
	if !ok {
		return nil, manifestFormat().matches(e)
	}
	if e, err = ParseEnvelopeOf(envelope, f.limit); err != nil {
		return nil, err
	}
	if err := f.check(e.Payload); err != nil {
		return nil, err
	}
	return addTo(e, keys)
}

// format is a type of payload that this package reads, and therefore never
// signs or opens unread.
type format struct {
	payloadType string
	name        string // "the manifest"
	limit       int    // bytes of the envelope
	check       func(payload []byte) error
}

func manifestFormat() format {
	return format{payloadType: PayloadType, name: "the manifest", limit: MaxEnvelope, check: func(b []byte) error { _, err := Parse(b); return err }}
}

func denyListFormat() format {
	return format{
		payloadType: DenyListPayloadType, name: "the deny list", limit: MaxDenyListEnvelope,
		check: func(b []byte) error { _, err := ParseDenyList(b); return err },
	}
}

func formatOf(payloadType string) (format, bool) {
	switch payloadType {
	case PayloadType:
		return manifestFormat(), true
	case DenyListPayloadType:
		return denyListFormat(), true
	}
	return format{}, false
}

func (f format) sign(payload []byte, keys []crypto.Signer) ([]byte, error) {
	if err := f.check(payload); err != nil {
		return nil, err
	}
	return addTo(&Envelope{PayloadType: f.payloadType, Payload: payload}, keys)
}

// open checks the type and the signatures; what is signed is yet to be read.
func (f format) open(envelope []byte, trusted Operators) (*SignedPayload, error) {
	e, err := ParseEnvelopeOf(envelope, f.limit)
	if err != nil {
		return nil, err
	}
	if err := f.matches(e).Err(); err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.name, err)
	}
	signers, ignored, decision := e.verify(trusted)
	if err := decision.Err(); err != nil {
		return nil, fmt.Errorf("opening %s: %w", f.name, err)
	}
	return &SignedPayload{Payload: e.Payload, Signers: signers, Ignored: ignored}, nil
}

func (f format) matches(e *Envelope) Decision {
	const rule = "the envelope's payloadType"
	if e.PayloadType == f.payloadType {
		return allow(rule)
	}
	return Decision{
		Code: CodePayloadType, Rule: rule, Expected: quote(f.payloadType), Actual: quote(e.PayloadType),
		Remedy: "this envelope holds something else than " + f.name,
	}
}

// SignPayload wraps a payload whose rules are the caller's. Manifests and deny
// lists are left to Sign and SignDenyList, which check them.
func SignPayload(payloadType string, payload []byte, keys ...crypto.Signer) ([]byte, error) {
	if _, ours := formatOf(payloadType); ours || payloadType == "" {
		return nil, Decision{Code: CodePayloadType, Rule: "the envelope's payloadType", Expected: "another type than a manifest's or a deny list's", Actual: quote(payloadType)}
	}
	return addTo(&Envelope{PayloadType: payloadType, Payload: payload}, keys)
}

// AddPayloadSignature adds signatures to an envelope of at most limit bytes that
// SignPayload made, with exactly this type of payload.
func AddPayloadSignature(envelope []byte, payloadType string, limit int, keys ...crypto.Signer) ([]byte, error) {
	e, err := ParseEnvelopeOf(envelope, limit)
	if err != nil {
		return nil, err
	}
	if _, ours := formatOf(payloadType); ours || e.PayloadType != payloadType {
		return nil, Decision{Code: CodePayloadType, Rule: "the envelope's payloadType", Expected: quote(payloadType), Actual: quote(e.PayloadType)}
	}
	return addTo(e, keys)
}

// SignedPayload is a payload whose signatures were checked, and nothing else.
type SignedPayload struct {
	Payload []byte
	Signers []string
	Ignored []IgnoredSignature
}

// OpenPayload checks that enough of the trusted keys signed an envelope of at
// most limit bytes with exactly this type of payload, which is not one that
// this package reads.
func OpenPayload(envelope []byte, payloadType string, limit int, trusted Operators) (*SignedPayload, error) {
	e, err := ParseEnvelopeOf(envelope, limit)
	if err != nil {
		return nil, err
	}
	if _, ours := formatOf(payloadType); ours || e.PayloadType != payloadType {
		return nil, Decision{Code: CodePayloadType, Rule: "the envelope's payloadType", Expected: quote(payloadType), Actual: quote(e.PayloadType)}
	}
	signers, ignored, decision := e.verify(trusted)
	if err := decision.Err(); err != nil {
		return nil, err
	}
	return &SignedPayload{Payload: e.Payload, Signers: signers, Ignored: ignored}, nil
}

func addTo(e *Envelope, keys []crypto.Signer) ([]byte, error) {
	for _, key := range keys {
		if err := e.sign(key); err != nil {
			return nil, fmt.Errorf("signing the envelope: %w", err)
		}
	}
	if n := len(e.Signatures); n == 0 || n > maxSignatures {
		return nil, Decision{Code: CodeSignatures, Rule: "the envelope's caps", Expected: fmt.Sprintf("1 to %d signatures", maxSignatures), Actual: strconv.Itoa(n)}
	}
	return e.Encode()
}
