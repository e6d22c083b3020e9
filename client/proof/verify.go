// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"errors"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// Against is what an attestation is judged by. Whoever fills it has verified
// the manifest, the deny list (operators' signatures, countersignatures) and
// the bundle (its endorsement).
type Against struct {
	Manifest *policy.Signed         // in force; required
	DenyList *policy.SignedDenyList // in force; nil: there never was one
	Bundle   *trust.Bundle          // the CDS's keys; required
	// ManifestSince and DenyListSince are when these came into force, by the
	// CDS's countersignature. A statement that follows their direct predecessor
	// is accepted if its beacon is older than that, or not much younger: the
	// ingress could not know yet. Zero never accepts one.
	ManifestSince, DenyListSince time.Time

	Now    time.Time     // required
	MaxAge time.Duration // of the beacon; zero accepts none but this second's
	TLSKey [32]byte      // SHA-256 of the connection's SubjectPublicKeyInfo; required
	Host   string        // that the request is for, in lower case without port; required
	Nonce  []byte        // that was sent; empty: none was
	Cache  *appraise.Cache
}

// State is what one step found.
type State string

// The states.
const (
	Proven  State = "proven"
	Open    State = "open" // nothing wrong, but not shown, or not reached
	Refuted State = "refuted"
)

// Step is one thing that was looked at.
type Step struct {
	Name     string `json:"name"` // stable
	State    State  `json:"state"`
	Code     string `json:"code,omitempty"` // why it is not proven
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
	Remedy   string `json:"remedy,omitempty"`
}

// Proof is what came out. The facts are there only when no step was refuted.
type Proof struct {
	Steps []Step `json:"steps"` // in the order in which each rests on those before

	Statement  *Statement           `json:"-"`
	Beacon     *beacon.Beacon       `json:"-"`
	Peer       *ratls.Peer          `json:"-"` // the mesh certificate
	Verdict    *attest.Verdict      `json:"-"` // there whenever evidence could be appraised
	Index      int64                `json:"-"` // of the certificate in the log
	Checkpoint *translog.Checkpoint `json:"-"`
	Until      time.Time            `json:"-"` // when the beacon is too old, or the certificate ends
}

// Verify judges the attestation. The Proof is never nil and has all steps; the
// error is nil only if none of them was refuted. Steps that are open are for
// the caller to weigh.
func (a *Attestation) Verify(against Against) (*Proof, error) {
	v := &verification{a: a, against: &against, p: &Proof{}}
	if v.question() {
		v.documents()
		v.machine()
		v.word()
		v.caller()
		v.weight()
	}
	for _, s := range v.p.Steps {
		if s.State == Refuted {
			return &Proof{Steps: v.p.Steps, Verdict: v.p.Verdict}, &RefutedError{Step: s}
		}
	}
	v.p.Statement, v.p.Index = &a.Statement, a.Receipt.Index
	v.p.Until = v.until()
	return v.p, nil
}

// until is when the first of what was judged by time ends.
func (v *verification) until() time.Time {
	until := v.p.Beacon.Time.Add(v.against.MaxAge)
	if v.p.Peer.NotAfter.Before(until) {
		until = v.p.Peer.NotAfter
	}
	if change, ok := v.against.Manifest.Manifest.NextChange(v.against.Now); ok && change.Before(until) {
		until = change
	}
	return until
}

// RefutedError is the first step that was refuted.
type RefutedError struct{ Step Step }

func (e *RefutedError) Error() string {
	return "verifying an ingress's attestation: step " + e.Step.Name + ": " +
		attest.NewFailure(e.Step.Code, e.Step.Expected, e.Step.Actual, e.Step.Remedy).Error()
}

// CodeOf returns the code of the step that was refuted, or "".
func CodeOf(err error) string {
	if refuted := (*RefutedError)(nil); errors.As(err, &refuted) {
		return refuted.Step.Code
	}
	return attest.FailureCode(err)
}
