// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// CountersignatureType is the DSSE payload type of a countersignature.
const CountersignatureType = "application/vnd.c8s.countersignature.v1+json"

// CountersignatureSchema is the only countersignature schema this package reads.
const CountersignatureSchema = "c8s.dev/countersignature/v1"

const maxCountersignature = 8 << 10 // bytes of an envelope

// Kind is what a countersignature is about.
type Kind string

// The kinds.
const (
	KindManifest Kind = "manifest"
	KindDenyList Kind = "denylist"
)

// Codes of refused countersignatures.
const (
	CodeCountersignature        = "countersignature-malformed"
	CodeCountersignatureForeign = "countersignature-foreign"
)

// Subject is the document that was put in force.
type Subject struct {
	Kind        Kind          `json:"kind"`
	TrustDomain string        `json:"trustDomain"`
	Version     uint64        `json:"version"`
	Digest      policy.Digest `json:"digest"`
	Previous    policy.Digest `json:"previous"` // empty where there is none
}

// ManifestSubject describes a manifest.
func ManifestSubject(s *policy.Signed) Subject {
	m := s.Manifest
	return Subject{Kind: KindManifest, TrustDomain: m.TrustDomain, Version: m.Version, Digest: s.Digest, Previous: m.Previous}
}

// DenyListSubject describes a deny list.
func DenyListSubject(s *policy.SignedDenyList) Subject {
	l := s.List
	return Subject{Kind: KindDenyList, TrustDomain: l.TrustDomain, Version: l.Version, Digest: s.Digest, Previous: l.Previous}
}

// Countersignature is the CDS's word that the operators' signatures were good,
// that the document followed the one in force, and where the log has it.
type Countersignature struct {
	Schema string `json:"schema"` // CountersignatureSchema
	Subject
	LogIndex uint64 `json:"logIndex"`
	Time     int64  `json:"time"` // Unix time at which it was put in force
}

// Countersign signs that the subject is in force since then, and logged.
func Countersign(key ed25519.PrivateKey, s Subject, logIndex uint64, at time.Time) ([]byte, error) {
	c := Countersignature{Schema: CountersignatureSchema, Subject: s, LogIndex: logIndex, Time: at.Unix()}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("countersigning: %w", err)
	}
	payload, err := onejson.Encode(c)
	if err != nil {
		return nil, fmt.Errorf("countersigning: %w", err)
	}
	envelope, err := policy.SignPayload(CountersignatureType, payload, key)
	if err != nil {
		return nil, fmt.Errorf("countersigning: %w", err)
	}
	return envelope, nil
}

func (c *Countersignature) check() error {
	refuse := func(expected, actual string) error {
		return attest.NewFailure(CodeCountersignature, expected, actual, "")
	}
	switch {
	case c.Schema != CountersignatureSchema:
		return refuse("schema "+CountersignatureSchema, c.Schema)
	case c.Kind != KindManifest && c.Kind != KindDenyList:
		return refuse("kind manifest or denylist", string(c.Kind))
	case c.TrustDomain == "" || c.Version == 0 || c.Time <= 0:
		return refuse("a trust domain, a version and a time", fmt.Sprintf("%q, %d, %d", c.TrustDomain, c.Version, c.Time))
	case !c.Digest.Valid():
		return refuse("a digest", string(c.Digest))
	case c.Previous != "" && !c.Previous.Valid():
		return refuse("a previous digest, or none", string(c.Previous))
	}
	return nil
}

// VerifyCountersignature checks that the key, of a bundle that was verified,
// countersigned exactly the subject.
func VerifyCountersignature(envelope []byte, public ed25519.PublicKey, want Subject) (*Countersignature, error) {
	c, err := verifyCountersignature(envelope, public, want)
	if err != nil {
		return nil, fmt.Errorf("verifying the countersignature: %w", err)
	}
	return c, nil
}

func verifyCountersignature(envelope []byte, public ed25519.PublicKey, want Subject) (*Countersignature, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, attest.NewFailure(CodeCountersignature, "an Ed25519 key", fmt.Sprintf("%d bytes", len(public)), "verify the CDS's bundle first")
	}
	key, err := policy.NewOperatorKey("cds", public)
	if err != nil {
		return nil, err
	}
	opened, err := policy.OpenPayload(envelope, CountersignatureType, maxCountersignature, policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{key}})
	if err != nil {
		return nil, err
	}
	c := &Countersignature{}
	if err := onejson.Decode(opened.Payload, maxCountersignature, c); err != nil {
		return nil, attest.NewFailure(CodeCountersignature, "a countersignature in its canonical encoding", err.Error(), "")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Subject != want {
		return nil, attest.NewFailure(CodeCountersignatureForeign, fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", c.Subject), "it countersigns another document")
	}
	return c, nil
}
