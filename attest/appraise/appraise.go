// SPDX-License-Identifier: Apache-2.0

// Package appraise decides whether evidence is good enough for a role under a
// policy. Its invariant: every check it knows is in the verdict, and evidence
// is accepted only if all of them were made and none failed. A check that could
// not be made, because an earlier one failed, has failed.
//
// Reading evidence and cryptography are the TEE packages' (attest/snp,
// attest/tdx, attest/azure), reference values are policy's; this package only
// joins them and explains. It does no I/O: collateral comes with the evidence
// or with the request.
package appraise

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/policy"
)

// Policy judges what evidence proves: a *policy.Manifest, or a
// *policy.AppraisalPolicy outside a mesh.
type Policy interface {
	AcceptSubstrate(policy.Role, policy.SubstrateFacts, policy.GuestFacts, time.Time) policy.SubstrateMatch
}

// Request says what evidence is appraised for.
type Request struct {
	Policy     Policy              // required
	Role       policy.Role         // required: what the evidence's owner wants to be
	ReportData [64]byte            // required: attest.Transcript.ReportData of what it must be bound to
	Unbound    bool                // instead of ReportData: only ask what the evidence says, not whom it is for
	Nonce      []byte              // of a paravisor's TPM quote, where it is not azure.QualifyingData(ReportData)
	Now        time.Time           // required: at which certificates, collateral and reference values must be valid
	Collateral []attest.Collateral // in addition to what is stapled to the evidence
	Cache      *Cache              // nil: everything is verified anew
}

// Cache remembers verified certificate chains and collateral signatures. What
// depends on the time or on revocation is never remembered. It is safe for
// concurrent use.
type Cache struct {
	snp *snp.Cache
	tdx *tdx.Cache
}

// NewCache returns a cache for about as many machines.
func NewCache(machines int) *Cache {
	return &Cache{snp: snp.NewCache(machines), tdx: tdx.NewCache(machines)}
}

// Appraise judges evidence. It never returns nil.
func Appraise(ev *attest.Evidence, req Request) *attest.Verdict { return appraise(ev, req).v }

func appraise(ev *attest.Evidence, req Request) *appraisal {
	a := &appraisal{v: &attest.Verdict{}, req: req}
	a.v.TEE = attest.TEESEVSNP
	if ev != nil {
		a.ev = *ev
		a.v.TEE = ev.TEE
	}
	if a.req.Cache == nil {
		a.req.Cache = NewCache(1)
	}
	a.preconditions(ev)
	if a.ev.TEE == attest.TEETDX {
		a.tdx()
	} else {
		a.snp()
	}
	a.paravisor()
	a.policy()
	a.v.Conclude()
	return a
}

// appraisal collects the checks and the facts they establish. The facts count
// only once ready is set; checks that need what is missing fail.
type appraisal struct {
	v     *attest.Verdict
	ev    attest.Evidence
	req   Request
	ready bool              // the facts in v and guest are complete
	guest policy.GuestFacts // what certificates do not repeat

	bound      []byte        // REPORT_DATA of the hardware's report; nil before it is read
	collateral func() result // evaluates the vendor's collateral; nil before there is a chain
	committed  func(*policy.Substrate)
}

// result is the outcome of a check: what was found, and why it is not enough.
type result struct {
	actual string
	err    error
}

func found(actual string, err error) result { return result{actual, err} }

func (a *appraisal) add(c attest.Check) { a.v.Checks = append(a.v.Checks, c) }

// check makes one check, unless something it needs is missing.
func (a *appraisal) check(id CheckID, missing string, run func() result) {
	c := checkFor(id, "")
	if missing != "" {
		c.Status, c.Code, c.Actual = attest.Fail, CodeNotReached, "not checked: no usable "+missing
		a.add(c)
		return
	}
	a.add(finish(c, run()))
}

func (a *appraisal) notApplicable(id CheckID, why string) {
	c := checkFor(id, why)
	c.Status = attest.NotApplicable
	a.add(c)
}

func checkFor(id CheckID, actual string) attest.Check {
	e := explain(id)
	return attest.Check{ID: string(id), Expected: e.expected, Actual: actual, Source: e.source}
}

func finish(c attest.Check, r result) attest.Check {
	c.Status, c.Actual = attest.Pass, r.actual
	if r.err == nil {
		return c
	}
	c.Status, c.Code, c.Actual = attest.Fail, c.ID, r.err.Error()
	var f *attest.Failure
	if errors.As(r.err, &f) {
		c.Code, c.Expected, c.Actual, c.Remedy = f.Code, f.Expected, f.Actual, f.Remedy
	}
	return c
}

func (a *appraisal) preconditions(ev *attest.Evidence) {
	const given = "all given"
	c := checkFor(CheckRequest, given)
	switch {
	case ev == nil:
		c.Actual = "no evidence"
	case a.req.Policy == nil:
		c.Actual = "no policy"
	case a.req.Role == "":
		c.Actual = "no role"
	case a.req.ReportData == [64]byte{} && !a.req.Unbound:
		c.Actual = "no report data"
	case a.req.ReportData != [64]byte{} && a.req.Unbound:
		c.Actual = "report data, and the word that there is none"
	case a.req.Now.IsZero():
		c.Actual = "no time"
	}
	c.Status = attest.Pass
	if c.Actual != given {
		c.Status, c.Code = attest.Fail, CodeRequest
	}
	a.add(c)

	c = checkFor(CheckTEE, fmt.Sprintf("%.32q", a.ev.TEE))
	c.Status = attest.Pass
	if a.ev.TEE != attest.TEESEVSNP && a.ev.TEE != attest.TEETDX {
		c.Status, c.Code = attest.Fail, CodeTEE
	}
	a.add(c)
}

// bind compares what the evidence commits to with what was asked for.
func (a *appraisal) bind(got []byte) result {
	want := a.req.ReportData
	if subtle.ConstantTimeCompare(got, want[:]) != 1 || want == [64]byte{} {
		return found("", attest.NewFailure(CodeReportData, hex.EncodeToString(want[:]), hex.EncodeToString(got),
			"the evidence is for another key, nonce, session or purpose: ask for fresh evidence"))
	}
	return found(hex.EncodeToString(got), nil)
}

// stapled returns all collateral of one kind, the request's before the
// evidence's.
func (a *appraisal) stapled(kind attest.CollateralKind) []attest.Collateral {
	var items []attest.Collateral
	for _, c := range slices.Concat(a.req.Collateral, a.ev.Collateral) {
		if c.Kind == kind {
			items = append(items, c)
		}
	}
	return items
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
