// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"errors"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/policy"
)

// The names of the steps.
const (
	StepQuestion    = "question"    // only where it cannot be asked
	StepStatement   = "statement"   // well-formed, and of this trust domain
	StepBeacon      = "beacon"      // signed by the CDS, and young enough
	StepChain       = "chain"       // mesh certificate of role ingress under the CDS's root
	StepCertificate = "certificate" // is the one the statement names
	StepReceipt     = "receipt"     // the certificate is in the log
	StepAccepted    = "accepted"    // the manifest accepts its machine
	StepEvidence    = "evidence"    // a TEE the manifest accepts committed to all of this
	StepMachine     = "machine"     // it is the certificate's
	StepDenied      = "denied"      // the deny list names none of it
	StepManifest    = "manifest"    // the ingress follows the one in force
	StepDenyList    = "denylist"    // likewise
	StepKey         = "tls-key"     // the connection's
	StepHost        = "host"        // the ingress serves it, and the manifest has it
	StepNonce       = "nonce"       // is the one that was sent
	StepHardware    = "hardware"    // open: simulated
	StepCollateral  = "collateral"  // open: revocation was not judged
)

// codeNotReached is the code of a step that needs one that was refuted.
const codeNotReached = "not-reached"

// verification collects the steps, and what they established for later ones.
type verification struct {
	a       *Attestation
	against *Against
	p       *Proof
	broken  []string // steps that were refuted, or not reached
}

// step makes one step. It is not reached, and open, where one that it needs
// was refuted.
func (v *verification) step(name, expected string, needs []string, run func() (actual string, err error)) {
	s := Step{Name: name, State: Proven, Expected: expected}
	if missing := v.missing(needs); missing != "" {
		s.State, s.Code, s.Actual = Open, codeNotReached, "not checked: it needs step "+missing
		v.add(s)
		return
	}
	actual, err := run()
	s.Actual = actual
	if err != nil {
		s.refute(err)
	}
	v.add(s)
}

func (v *verification) add(s Step) {
	if s.State == Refuted || s.Code == codeNotReached {
		v.broken = append(v.broken, s.Name)
	}
	v.p.Steps = append(v.p.Steps, s)
}

func (v *verification) missing(needs []string) string {
	for _, need := range needs {
		for _, broken := range v.broken {
			if need == broken {
				return need
			}
		}
	}
	return ""
}

// refute says why, in the words of whoever found it.
func (s *Step) refute(err error) {
	s.State, s.Actual = Refuted, err.Error()
	var failure *attest.Failure
	var refused *attest.RefusedError
	var decision policy.Decision
	var peer *ratls.Error
	switch {
	case errors.As(err, &failure):
		s.Code, s.Expected, s.Actual, s.Remedy = failure.Code, failure.Expected, failure.Actual, failure.Remedy
	case errors.As(err, &refused):
		s.Code, s.Expected, s.Actual, s.Remedy = refused.Code, refused.Check.Expected, refused.Check.Actual, refused.Check.Remedy
	case errors.As(err, &decision):
		s.Code, s.Expected, s.Actual, s.Remedy = string(decision.Code), decision.Expected, decision.Actual, decision.Remedy
		if s.Code == "" {
			s.Code = string(policy.CodeUndecided)
		}
	case errors.As(err, &peer):
		s.Code = string(peer.Code)
	default:
		s.Code = CodeMalformed
	}
}
