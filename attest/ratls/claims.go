// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/c8s-dev/c8s/policy"
)

// Caps on the claims extension. The text fields come from Kubernetes, whose
// names have up to 253 characters.
const (
	maxClaims    = 2 << 10
	maxShortText = 63
	maxName      = 253
)

// Claims are what the CDS found out about a certificate's holder and put into
// its certificate. Hexadecimal and digests are spelled as in the manifest.
type Claims struct {
	Role            policy.Role   `json:"role"`
	TEE             string        `json:"tee"`
	Product         string        `json:"product"`
	Simulated       bool          `json:"simulated"`
	Measurement     string        `json:"measurement"`
	HostData        string        `json:"hostData"`
	TCB             policy.TCB    `json:"tcb"`
	Machine         string        `json:"machine"`
	Root            policy.Digest `json:"root"`
	Workload        string        `json:"workload,omitempty"`       // of role workload only
	WorkloadDigest  policy.Digest `json:"workloadDigest,omitempty"` // of role workload only
	ManifestVersion uint64        `json:"manifestVersion"`
	ManifestDigest  policy.Digest `json:"manifestDigest"`
	Namespace       string        `json:"namespace,omitempty"` // these three of role workload only
	Pod             string        `json:"pod,omitempty"`
	PodUID          string        `json:"podUID,omitempty"`
	EvidenceHash    [32]byte      `json:"-"` // attest.Evidence.Hash of the node's or own evidence
}

// wire is the extension's CBOR map: small integer keys, raw bytes.
type wire struct {
	Version         uint64   `cbor:"0,keyasint"`
	Role            string   `cbor:"1,keyasint"`
	TEE             string   `cbor:"2,keyasint"`
	Product         string   `cbor:"3,keyasint"`
	Simulated       bool     `cbor:"4,keyasint"`
	Measurement     []byte   `cbor:"5,keyasint"`
	HostData        []byte   `cbor:"6,keyasint"`
	TCB             [4]uint8 `cbor:"7,keyasint"`
	Machine         []byte   `cbor:"8,keyasint"`
	Root            []byte   `cbor:"9,keyasint"`
	Workload        string   `cbor:"10,keyasint,omitempty"`
	WorkloadDigest  []byte   `cbor:"11,keyasint,omitempty"`
	ManifestVersion uint64   `cbor:"12,keyasint"`
	ManifestDigest  []byte   `cbor:"13,keyasint"`
	Namespace       string   `cbor:"14,keyasint,omitempty"`
	Pod             string   `cbor:"15,keyasint,omitempty"`
	PodUID          string   `cbor:"16,keyasint,omitempty"`
	EvidenceHash    []byte   `cbor:"17,keyasint"`
}

const claimsVersion = 1

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
		MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 32, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
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

func (c *Claims) wire() (*wire, error) {
	w := &wire{
		Version: claimsVersion, Role: string(c.Role), TEE: c.TEE, Product: c.Product, Simulated: c.Simulated,
		TCB:      [4]uint8{c.TCB.BootLoader, c.TCB.TEE, c.TCB.SNP, c.TCB.Microcode},
		Workload: c.Workload, ManifestVersion: c.ManifestVersion,
		Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, EvidenceHash: c.EvidenceHash[:],
	}
	for _, f := range []struct {
		name string
		from string
		to   *[]byte
	}{
		{"measurement", c.Measurement, &w.Measurement}, {"host data", c.HostData, &w.HostData}, {"machine", c.Machine, &w.Machine},
	} {
		b, err := hex.DecodeString(f.from)
		if err != nil || hex.EncodeToString(b) != f.from {
			return nil, fmt.Errorf("%s is not lower-case hexadecimal", f.name)
		}
		*f.to = b
	}
	for _, f := range []struct {
		name string
		from policy.Digest
		to   *[]byte
	}{
		{"root", c.Root, &w.Root}, {"workload digest", c.WorkloadDigest, &w.WorkloadDigest}, {"manifest digest", c.ManifestDigest, &w.ManifestDigest},
	} {
		if f.from == "" {
			continue // whether it may be absent is validate's question
		}
		if !f.from.Valid() {
			return nil, fmt.Errorf("%s %.80q is not a digest", f.name, f.from)
		}
		b, err := hex.DecodeString(string(f.from[len(digestPrefix):]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		*f.to = b
	}
	return w, w.validate()
}

const digestPrefix = "sha256:"

func (w *wire) claims() (*Claims, error) {
	if err := w.validate(); err != nil {
		return nil, err
	}
	return &Claims{
		Role: policy.Role(w.Role), TEE: w.TEE, Product: w.Product, Simulated: w.Simulated,
		Measurement: hex.EncodeToString(w.Measurement), HostData: hex.EncodeToString(w.HostData),
		TCB:     policy.TCB{BootLoader: w.TCB[0], TEE: w.TCB[1], SNP: w.TCB[2], Microcode: w.TCB[3]},
		Machine: hex.EncodeToString(w.Machine), Root: digest(w.Root),
		Workload: w.Workload, WorkloadDigest: digest(w.WorkloadDigest),
		ManifestVersion: w.ManifestVersion, ManifestDigest: digest(w.ManifestDigest),
		Namespace: w.Namespace, Pod: w.Pod, PodUID: w.PodUID, EvidenceHash: [32]byte(w.EvidenceHash),
	}, nil
}

func digest(b []byte) policy.Digest {
	if len(b) == 0 {
		return ""
	}
	return policy.Digest(digestPrefix + hex.EncodeToString(b))
}

// validate checks shapes only: what the values mean is the manifest's question.
func (w *wire) validate() error {
	for _, f := range []struct {
		name string
		b    []byte
		size int
	}{
		{"measurement", w.Measurement, 48},
		{"host data", w.HostData, 32},
		{"machine", w.Machine, 64},
		{"root", w.Root, 32},
		{"manifest digest", w.ManifestDigest, 32},
		{"evidence hash", w.EvidenceHash, 32},
	} {
		if len(f.b) != f.size {
			return fmt.Errorf("%s of %d bytes, expected %d", f.name, len(f.b), f.size)
		}
	}
	for _, f := range []struct {
		name, s string
		max     int
		needed  bool
	}{
		{"TEE", w.TEE, maxShortText, true},
		{"product", w.Product, maxShortText, true},
		{"workload", w.Workload, maxShortText, false},
		{"namespace", w.Namespace, maxShortText, false},
		{"pod", w.Pod, maxName, false},
		{"pod UID", w.PodUID, maxShortText, false},
	} {
		if len(f.s) > f.max || !printable(f.s) || f.needed && f.s == "" {
			return fmt.Errorf("%s is not 1 to %d printable ASCII characters", f.name, f.max)
		}
	}
	if w.ManifestVersion == 0 {
		return fmt.Errorf("manifest version is zero")
	}
	return w.validateRole()
}

func (w *wire) validateRole() error {
	switch policy.Role(w.Role) {
	case policy.RoleWorkload:
		if w.Workload == "" || len(w.WorkloadDigest) != 32 || w.Namespace == "" || w.Pod == "" || w.PodUID == "" {
			return fmt.Errorf("role %q without workload, its digest, namespace, pod or pod UID", w.Role)
		}
	case policy.RoleNode, policy.RoleCDS, policy.RoleIngress:
		if w.Workload != "" || len(w.WorkloadDigest) != 0 || w.Namespace != "" || w.Pod != "" || w.PodUID != "" {
			return fmt.Errorf("role %q with the claims of a workload", w.Role)
		}
	default:
		return fmt.Errorf("unknown role %.32q", w.Role)
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
