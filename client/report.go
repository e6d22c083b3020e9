// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

// State is what a step found, or the whole.
type State string

// The states. A whole that is partly proven has a step that is open and none
// that is refuted.
const (
	Proven  State = "proven"
	Partly  State = "partly"
	Refuted State = "refuted"
)

// The steps of a report before those of package proof, in their order.
const (
	StepConnection = "connection"      // TLS 1.3, and the web PKI where it is asked
	StepAnchor     = "anchor"          // the trust anchor opens the first manifest
	StepManifest   = "manifest-signed" // followed from there to the one in force
	StepCDS        = "cds"             // evidence vouches for the keys the CDS signs with
	StepCDSTEE     = "cds-hardware"
	StepInForce    = "in-force" // the CDS countersigned
	StepDenyList   = "denylist-signed"
	StepLog        = "log"
	StepWitnesses  = "witnesses"
	StepMemory     = "memory" // nothing is older than what was seen before
)

// Codes of this package's own refusals. Those of others are passed on.
const (
	CodeTLS          = "connection-tls"
	CodeUnavailable  = "document-unavailable"
	CodeDocument     = "document-refused"
	CodeAnchor       = "anchor-unknown"
	CodeReplaced     = "cds-replaced"
	CodeOlder        = "older-than-before"
	CodeForked       = "forked"
	CodeSimulated    = "simulated"
	CodeNoCollateral = "no-collateral"
	CodeNoWitnesses  = "no-witnesses"
	CodeUnwitnessed  = "unwitnessed"
	CodeDenied       = "denied"
	CodeStale        = "proof-stale"
	CodeReceipt      = "receipt-refused"
	CodePartly       = "partly-proven"
)

// Report is what a connection's other end proved, step by step; each rests on
// those before.
type Report struct {
	URL         string          `json:"url"`
	Address     string          `json:"address,omitempty"` // of the peer
	At          time.Time       `json:"at"`
	Anchor      string          `json:"anchor"`
	TrustDomain string          `json:"trustDomain,omitempty"`
	Overall     State           `json:"verdict"`
	Steps       []proof.Step    `json:"steps"`
	Manifest    *proof.Followed `json:"manifest,omitempty"`
	DenyList    *proof.Followed `json:"denyList,omitempty"`
	TLSKey      policy.Digest   `json:"tlsKey,omitempty"`
	Until       time.Time       `json:"until,omitzero"` // when the proof is too old
	Proof       *proof.Proof    `json:"-"`
	Documents   []Document      `json:"-"` // all that were read, in that order
}

// Document is one that the other end served.
type Document struct {
	Path string // below the host
	Body []byte
}

func (r *Report) add(s proof.Step) { r.Steps = append(r.Steps, s) }

func (r *Report) proven(name, expected, format string, args ...any) {
	r.add(proof.Step{Name: name, State: proof.Proven, Expected: expected, Actual: fmt.Sprintf(format, args...)})
}

func (r *Report) open(name, code, expected, actual, remedy string) {
	r.add(proof.Step{Name: name, State: proof.Open, Code: code, Expected: expected, Actual: actual, Remedy: remedy})
}

// refute adds the step that err refutes and returns the error for callers.
func (r *Report) refute(name, expected string, err error) error {
	s := proof.Step{Name: name, State: proof.Refuted, Code: CodeDocument, Expected: expected, Actual: err.Error()}
	var f *attest.Failure
	var v *attest.RefusedError
	var d policy.Decision
	switch {
	case errors.As(err, &f):
		s.Code, s.Expected, s.Actual, s.Remedy = f.Code, f.Expected, f.Actual, f.Remedy
	case errors.As(err, &v):
		s.Code, s.Expected, s.Actual, s.Remedy = v.Code, v.Check.Expected, v.Check.Actual, v.Check.Remedy
	case errors.As(err, &d):
		s.Code, s.Expected, s.Actual, s.Remedy = string(d.Code), d.Expected, d.Actual, d.Remedy
	case isNetwork(err):
		s.Code = CodeUnavailable
	default:
		if code := policy.CodeOf(err); code != "" { // a document with several problems
			s.Code = string(code)
		}
	}
	r.add(s)
	return &Refusal{Step: s, Report: r, cause: err}
}

// conclude needs all steps: a report without any is refuted.
func (r *Report) conclude() {
	r.Overall = Proven
	if len(r.Steps) == 0 {
		r.Overall = Refuted
	}
	for _, s := range r.Steps {
		switch {
		case s.State != proof.Proven && s.State != proof.Open:
			r.Overall = Refuted
			return
		case s.State == proof.Open:
			r.Overall = Partly
		}
	}
}

// Open returns the steps that are open.
func (r *Report) Open() []proof.Step { return r.in(proof.Open) }

// Refuted returns the steps that are refuted.
func (r *Report) Refuted() []proof.Step { return r.in(proof.Refuted) }

func (r *Report) in(state proof.State) (found []proof.Step) {
	for _, s := range r.Steps {
		if s.State == state {
			found = append(found, s)
		}
	}
	return found
}

// Refusal is why a connection, or an answer, is not used. Nothing of a request
// was written to the connection, or nothing more.
type Refusal struct {
	Step   proof.Step
	Report *Report // what was found until then
	cause  error
}

func (e *Refusal) Error() string {
	s := fmt.Sprintf("proving %s: step %s: %s: expected %s, found %s", e.Report.URL, e.Step.Name, e.Step.Code, clip(e.Step.Expected), clip(e.Step.Actual))
	if e.Step.Remedy != "" {
		s += "; " + clip(e.Step.Remedy)
	}
	return s
}

// Answered reports whether it is the answer that is refused: the request was
// sent then, and may have taken effect.
func (e *Refusal) Answered() bool { return e.Step.Code == CodeReceipt }

// Unwrap returns the cause, nil where there is none.
func (e *Refusal) Unwrap() error { return e.cause }

// accept refuses what is not proven and not allowed to be missing.
func (c *Client) accept(r *Report) error {
	for _, s := range r.Steps {
		allowed := s.State == proof.Proven
		if s.State == proof.Open && !c.cfg.RequireAll {
			switch s.Code {
			case CodeSimulated, proof.CodeSimulated:
				allowed = c.cfg.AllowSimulated
			case CodeUnwitnessed:
				allowed = c.cfg.AllowUnwitnessed
			case CodeNoWitnesses, CodeNoCollateral, proof.CodeCollateral:
				allowed = true // the operators ask for none
			}
		}
		if !allowed {
			return &Refusal{Step: s, Report: r}
		}
	}
	if r.Overall != Proven && r.Overall != Partly {
		return &Refusal{Step: proof.Step{Name: StepConnection, State: proof.Refuted, Code: CodePartly, Expected: "a report", Actual: "none"}, Report: r}
	}
	return nil
}

// clip shortens texts from strangers, and takes out what terminals obey.
func clip(s string) string {
	const limit = 400
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
