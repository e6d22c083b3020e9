// SPDX-License-Identifier: Apache-2.0

// Package api is the protocol between the certificate distribution service
// and its callers: the generated messages, and the few bytes both sides must
// form alike so that evidence and statements bind to one TLS connection.
package api

//go:generate sh generate.sh

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// PurposeServer is the transcript purpose of the service's own evidence.
	PurposeServer = "cds-tls"
	// PurposeNode, PurposeIngress and PurposeCDS are the transcript purposes of
	// the enrolment of machines, one for each role.
	PurposeNode    = "enrol/node"
	PurposeIngress = "enrol/ingress"
	PurposeCDS     = "enrol/cds"
	// PurposeIngressProof is the transcript purpose of what an ingress shows its
	// clients, PurposeIngressNonce that of what it shows one that sent a nonce.
	PurposeIngressProof = "ingress/proof"
	PurposeIngressNonce = "ingress/nonce"
	// PurposePod is the transcript purpose of evidence that a node adds to a
	// pod's statement, PurposeGuest that of a pod's own evidence.
	PurposePod   = "enrol/pod"
	PurposeGuest = "enrol/guest"
	// PurposeIntermediate is that of a replica's issuing key.
	PurposeIntermediate = "cds-intermediate"

	// RecoveryKitType is the DSSE payload type of a recovery document that the
	// operators signed.
	RecoveryKitType = "application/vnd.c8s.recovery.v1+json"

	exporterLabel = "EXPORTER-c8s-enrol"
	exporterSize  = 32
	// NonceSize is the length of a challenge in bytes.
	NonceSize = 32

	statementTag     = "c8s/pod-statement/v1\x00"
	maxStatement     = 64 << 10
	maxImages        = 64
	maxAddrs         = 4
	maxStatementText = 512
)

// Exporter is the keying material (RFC 8446 section 7.5) that ties evidence
// and statements to one TLS session and one nonce.
func Exporter(cs *tls.ConnectionState, nonce []byte) ([]byte, error) {
	if cs == nil || cs.Version != tls.VersionTLS13 {
		return nil, errors.New("deriving the session's exporter: not a TLS 1.3 connection")
	}
	return cs.ExportKeyingMaterial(exporterLabel, nonce, exporterSize)
}

// MachineTranscript is what a machine's evidence must commit to when it enrols
// the key with this SubjectPublicKeyInfo.
func MachineTranscript(purpose string, nonce, exporter, spki []byte) attest.Transcript {
	hash := sha256.Sum256(spki)
	return attest.Transcript{Purpose: purpose, Nonce: nonce, Exporter: exporter, SPKIHash: hash[:]}
}

// StatementTranscript is what evidence must commit to that goes with a pod's
// statement: the statement names nonce, exporter and key.
func StatementTranscript(purpose string, st *PodStatement, statement []byte) attest.Transcript {
	digest := StatementDigest(statement)
	return attest.Transcript{Purpose: purpose, Nonce: st.Nonce, Exporter: st.Exporter, SPKIHash: st.SPKIHash, ClaimsHash: digest[:]}
}

// IntermediateTranscript is what a replica's evidence must commit to for the
// issuing key with this SubjectPublicKeyInfo.
func IntermediateTranscript(spki []byte) attest.Transcript {
	hash := sha256.Sum256(spki)
	return attest.Transcript{Purpose: PurposeIntermediate, SPKIHash: hash[:]}
}

// PodStatement is what a node says about a pod it wants certified.
type PodStatement struct {
	Nonce     []byte          `cbor:"1,keyasint"`
	Exporter  []byte          `cbor:"2,keyasint"`
	SPKIHash  []byte          `cbor:"3,keyasint"` // SHA-256 of the pod key's SubjectPublicKeyInfo
	Evidence  []byte          `cbor:"4,keyasint"` // hash of the node's evidence; empty if the pod is a machine of its own
	Namespace string          `cbor:"5,keyasint"`
	Name      string          `cbor:"6,keyasint"`
	UID       string          `cbor:"7,keyasint"`
	Entry     string          `cbor:"8,keyasint"` // the workload entry asked for; only narrows
	Images    []policy.Digest `cbor:"9,keyasint"`
	Addrs     [][]byte        `cbor:"10,keyasint"` // 4 or 16 bytes each
	Signed    []SignedImage   `cbor:"11,keyasint,omitempty"`
}

// SignedImage is one of a statement's images with the publisher's key whose
// signature of it the node verified, where the manifest lists it by signer.
type SignedImage struct {
	Digest policy.Digest `cbor:"1,keyasint"` // one of Images
	Signer policy.Digest `cbor:"2,keyasint"` // policy.Signer.ID of the key
}

// Marshal encodes the statement deterministically (RFC 8949 section 4.2).
func (s *PodStatement) Marshal() ([]byte, error) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(s)
}

// ParsePodStatement reads a statement. Only the encoding Marshal produces is
// accepted, so that one statement has one form.
func ParsePodStatement(raw []byte) (*PodStatement, error) {
	if len(raw) > maxStatement {
		return nil, fmt.Errorf("parsing the pod statement: %d bytes, at most %d allowed", len(raw), maxStatement)
	}
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: maxImages, MaxMapPairs: 16, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8: cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		return nil, err
	}
	var s PodStatement
	if err := mode.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("parsing the pod statement: %w", err)
	}
	if again, err := s.Marshal(); err != nil || !bytes.Equal(again, raw) {
		return nil, errors.New("parsing the pod statement: not in its deterministic encoding")
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("parsing the pod statement: %w", err)
	}
	return &s, nil
}

func (s *PodStatement) check() error {
	switch {
	case len(s.Nonce) != NonceSize, len(s.Exporter) != exporterSize:
		return errors.New("nonce or exporter has the wrong length")
	case len(s.SPKIHash) != sha256.Size, len(s.Evidence) != sha256.Size && len(s.Evidence) != 0:
		return errors.New("a hash has the wrong length")
	case s.UID == "" || s.Namespace == "" || s.Name == "":
		return errors.New("namespace, name or UID is empty")
	case len(s.UID)+len(s.Namespace)+len(s.Name)+len(s.Entry) > maxStatementText:
		return errors.New("names are too long")
	case len(s.Images) == 0:
		return errors.New("it names no image")
	case len(s.Addrs) == 0 || len(s.Addrs) > maxAddrs:
		return fmt.Errorf("it has %d addresses, want 1 to %d", len(s.Addrs), maxAddrs)
	}
	for _, signed := range s.Signed {
		if !signed.Digest.Valid() || !signed.Signer.Valid() || !slices.Contains(s.Images, signed.Digest) {
			return errors.New("a signature is of none of the images, or by no key")
		}
	}
	_, err := s.Addresses()
	return err
}

// Addresses returns the pod's addresses.
func (s *PodStatement) Addresses() ([]netip.Addr, error) {
	addrs := make([]netip.Addr, len(s.Addrs))
	for i, raw := range s.Addrs {
		a, ok := netip.AddrFromSlice(raw)
		if !ok || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Is4In6() {
			return nil, fmt.Errorf("address %d cannot be a pod's", i)
		}
		addrs[i] = a
	}
	return addrs, nil
}

// StatementDigest is what the node's key signs: SHA-256 over a tag no other
// signature of c8s uses, and the statement.
func StatementDigest(statement []byte) [32]byte {
	return sha256.Sum256(append([]byte(statementTag), statement...))
}
