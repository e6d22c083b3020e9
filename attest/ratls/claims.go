// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/c8s-dev/c8s/policy"
)

// Caps on the claims extension. The text fields come from Kubernetes, whose
// names have up to 253 characters.
const (
	maxClaims     = 4 << 10
	maxShortText  = 63
	maxName       = 253
	maxMachine    = 133 // "ppid:" or a chip id of 64 bytes in hexadecimal
	maxRegisters  = 32  // 4 RTMRs and 24 PCRs
	maxAdvisories = 64
)

// Claims are what the CDS found out about a certificate's holder and put into
// its certificate. Hexadecimal and digests are spelled as in the manifest.
type Claims struct {
	Role policy.Role `json:"role"`
	policy.SubstrateFacts
	Workload        string        `json:"workload,omitempty"`       // of role workload only
	WorkloadDigest  policy.Digest `json:"workloadDigest,omitempty"` // of role workload only
	ManifestVersion uint64        `json:"manifestVersion"`
	ManifestDigest  policy.Digest `json:"manifestDigest"`
	Namespace       string        `json:"namespace,omitempty"` // these three of role workload only
	Pod             string        `json:"pod,omitempty"`
	PodUID          string        `json:"podUID,omitempty"`
	EvidenceHash    [32]byte      `json:"-"` // attest.Evidence.Hash of the node's or own evidence
}

// codec is made for every call, which costs less than a microsecond and spares
// a global.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: maxAdvisories, MaxMapPairs: maxRegisters, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	return codec{enc, dec}, err
}

// Marshal writes the claims in deterministic CBOR (RFC 8949 section 4.2.1). It
// refuses claims that ParseClaims would refuse.
func (c *Claims) Marshal() ([]byte, error) {
	w, err := c.wire()
	if err != nil {
		return nil, fmt.Errorf("writing the claims: %w", err)
	}
	k, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("writing the claims: %w", err)
	}
	b, err := k.enc.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("writing the claims: %w", err)
	}
	if len(b) > maxClaims {
		return nil, fmt.Errorf("writing the claims: %d bytes, at most %d allowed", len(b), maxClaims)
	}
	return b, nil
}

// ParseClaims reads what Marshal writes, and nothing else.
func ParseClaims(b []byte) (*Claims, error) {
	if len(b) > maxClaims {
		return nil, refuse(CodeClaims, "reading the claims: %d bytes, at most %d accepted", len(b), maxClaims)
	}
	k, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("reading the claims: %w", err)
	}
	var w wire
	if err := k.dec.Unmarshal(b, &w); err != nil {
		return nil, refuse(CodeClaims, "reading the claims: %w", err)
	}
	if w.Version != claimsVersion {
		return nil, refuse(CodeClaims, "reading the claims: version %d, expected %d", w.Version, claimsVersion)
	}
	c, err := w.claims()
	if err != nil {
		return nil, refuse(CodeClaims, "reading the claims: %w", err)
	}
	// The claims' hash is signed elsewhere: one value, one encoding.
	again, err := k.enc.Marshal(w)
	if err != nil || !bytes.Equal(again, b) {
		return nil, refuse(CodeClaims, "reading the claims: not in deterministic encoding")
	}
	return c, nil
}
