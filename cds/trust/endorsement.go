// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// EndorsementSchema is the only endorsement schema this package reads.
const EndorsementSchema = "c8s.dev/cds-endorsement/v1"

// Purpose is that of the evidence in an endorsement.
const Purpose = "cds-bundle"

const (
	// EndorsementLife is how long an endorsement is valid, as a native
	// certificate.
	EndorsementLife = 24 * time.Hour
	// clockSkew is how far the clocks of two machines may differ.
	clockSkew = 5 * time.Minute
	claimsTag = "c8s/cds-bundle/v1"
	// A record in base64, the bundle, and what is around them.
	maxEndorsement = attest.MaxCMW*4/3 + maxBundle + 1<<10
)

// Codes of refusals. Those of the appraisal are passed on.
const (
	CodeEndorsement  = "endorsement-malformed"
	CodeDates        = "endorsement-expired"
	CodeTrustDomain  = "endorsement-trust-domain"
	CodeNotOperators = "operators-not-bound"
)

// Endorsement is a bundle with evidence: a measured CDS says that these are the
// keys.
type Endorsement struct {
	Schema    string `json:"schema"` // EndorsementSchema
	Bundle    Bundle `json:"bundle"`
	Evidence  []byte `json:"evidence"`  // CMW record in CBOR
	NotBefore int64  `json:"notBefore"` // Unix time
	NotAfter  int64  `json:"notAfter"`
}

// Endorse asks the TEE to vouch for the bundle.
func Endorse(ctx context.Context, attester attest.Attester, bundle *Bundle, now time.Time) (*Endorsement, error) {
	e := &Endorsement{
		Schema: EndorsementSchema, Bundle: *bundle,
		NotBefore: now.Add(-clockSkew).Unix(), NotAfter: now.Add(EndorsementLife).Unix(),
	}
	data, err := e.reportData()
	if err != nil {
		return nil, fmt.Errorf("endorsing the CDS's keys: %w", err)
	}
	evidence, err := attester.Attest(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("endorsing the CDS's keys: %w", err)
	}
	if e.Evidence, err = attest.MarshalCMW(evidence); err != nil {
		return nil, fmt.Errorf("endorsing the CDS's keys: %w", err)
	}
	return e, nil
}

// ParseEndorsement reads an endorsement in its canonical encoding, and believes
// nothing of it.
func ParseEndorsement(text []byte) (*Endorsement, error) {
	e := &Endorsement{}
	if err := onejson.Decode(text, maxEndorsement, e); err != nil {
		return nil, attest.NewFailure(CodeEndorsement, "an endorsement in its canonical encoding", err.Error(), "")
	}
	if e.Schema != EndorsementSchema {
		return nil, attest.NewFailure(CodeEndorsement, "schema "+EndorsementSchema, e.Schema, "")
	}
	if err := e.Bundle.check(); err != nil {
		return nil, attest.NewFailure(CodeEndorsement, "a well-formed bundle", err.Error(), "")
	}
	if e.NotBefore < 0 || e.NotAfter < e.NotBefore {
		return nil, attest.NewFailure(CodeEndorsement, "dates after 1970, in order", fmt.Sprintf("%d to %d", e.NotBefore, e.NotAfter), "")
	}
	return e, nil
}

// Encode writes the endorsement's one encoding.
func (e *Endorsement) Encode() ([]byte, error) {
	text, err := onejson.Encode(e)
	if err != nil {
		return nil, fmt.Errorf("encoding the endorsement: %w", err)
	}
	if _, err := ParseEndorsement(text); err != nil {
		return nil, fmt.Errorf("encoding the endorsement: %w", err)
	}
	return text, nil
}

// reportData binds the evidence to the bundle and the dates by the transcript's
// field for claims: SHA-256 over the tag, a zero byte, the two dates as
// big-endian uint64, and the bundle's encoding.
func (e *Endorsement) reportData() ([64]byte, error) {
	bundle, err := e.Bundle.Encode()
	if err != nil {
		return [64]byte{}, err
	}
	claims := append([]byte(claimsTag), 0)
	claims = binary.BigEndian.AppendUint64(claims, uint64(e.NotBefore)) //nolint:gosec // after 1970
	claims = binary.BigEndian.AppendUint64(claims, uint64(e.NotAfter))  //nolint:gosec // after 1970
	hash := sha256.Sum256(append(claims, bundle...))
	return attest.Transcript{Purpose: Purpose, ClaimsHash: hash[:]}.ReportData(), nil
}

// Verify accepts the bundle if the evidence satisfies the manifest for the role
// cds, and binds the operators: a CDS that others launched says what they want,
// whatever a manifest says. The verdict is there whenever the evidence could be
// read; the error is nil only if everything was accepted.
func (e *Endorsement) Verify(manifest *policy.Manifest, operators policy.Operators, now time.Time) (*attest.Verdict, error) {
	v, err := e.verify(manifest, operators, now)
	if err != nil {
		return v, fmt.Errorf("verifying the CDS's endorsement: %w", err)
	}
	return v, nil
}

func (e *Endorsement) verify(manifest *policy.Manifest, operators policy.Operators, now time.Time) (*attest.Verdict, error) {
	if err := operators.Validate(); err != nil {
		return nil, err
	}
	if manifest.Digest() == "" {
		return nil, errors.New("no manifest to appraise under")
	}
	if e.Bundle.TrustDomain != manifest.TrustDomain {
		return nil, attest.NewFailure(CodeTrustDomain, manifest.TrustDomain, e.Bundle.TrustDomain, "ask a CDS of this trust domain")
	}
	v, err := e.appraise(manifest, now)
	if err != nil {
		return v, err
	}
	if want := operatorsHex(operators); !OperatorsBound(v.HostData, operators) {
		return v, notBound("HOST_DATA", want, v.HostData)
	} else if e.Bundle.Operators != want {
		return v, notBound("the bundle", want, e.Bundle.Operators)
	}
	return v, nil
}

// Appraise judges the evidence for the bundle as that of a CDS under p, at now.
// For whom the machine was launched is in the verdict's HostData: the caller
// checks it, as Verify does.
func (e *Endorsement) Appraise(p appraise.Policy, now time.Time) (*attest.Verdict, error) {
	v, err := e.appraise(p, now)
	if err != nil {
		return v, fmt.Errorf("appraising the CDS's endorsement: %w", err)
	}
	return v, nil
}

func (e *Endorsement) appraise(p appraise.Policy, now time.Time) (*attest.Verdict, error) {
	if err := e.checkDates(now); err != nil {
		return nil, err
	}
	data, err := e.reportData()
	if err != nil {
		return nil, err
	}
	evidence, err := attest.ParseCMW(e.Evidence)
	if err != nil {
		return nil, err
	}
	v := appraise.Appraise(evidence, appraise.Request{Policy: p, Role: policy.RoleCDS, Now: now, ReportData: data})
	return v, v.Err()
}

func notBound(where, want, got string) error {
	return attest.NewFailure(CodeNotOperators, "the operators' digest "+want+" in "+where, got, "this CDS was launched for other operators: do not use it")
}

// OperatorsBound reports whether a verdict's host data is the digest of the
// operators: HOST_DATA of SEV-SNP, and MRCONFIGID of TDX, which has 48 bytes,
// padded with zeros.
func OperatorsBound(hostData string, operators policy.Operators) bool {
	return operators.Validate() == nil && DigestBound(hostData, operatorsHex(operators))
}

// DigestBound is OperatorsBound for the digest of valid operators, in lower-case
// hexadecimal.
func DigestBound(hostData, digest string) bool {
	return len(digest) == 2*sha256.Size && (hostData == digest || hostData == digest+strings.Repeat("0", 2*mrConfigPadding))
}

const mrConfigPadding = 48 - 32 // bytes

func operatorsHex(operators policy.Operators) string {
	digest := operators.Digest()
	return hex.EncodeToString(digest[:])
}

func (e *Endorsement) checkDates(now time.Time) error {
	from, to := time.Unix(e.NotBefore, 0), time.Unix(e.NotAfter, 0)
	if life := to.Sub(from); e.NotBefore < 0 || life <= 0 || life > EndorsementLife+clockSkew {
		return attest.NewFailure(CodeDates, "a life of at most "+(EndorsementLife+clockSkew).String(), life.String(), "")
	}
	if now.Before(from) || now.After(to) {
		return attest.NewFailure(CodeDates, "a time from "+from.UTC().String()+" to "+to.UTC().String(), now.UTC().String(), "fetch a newer endorsement, or set the clock")
	}
	return nil
}
