// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/policy"
)

// tdxEvidence is what the checks of a TDX quote establish step by step; what is
// nil could not be established.
type tdxEvidence struct {
	quote *tdx.Quote
	chain *tdx.Chain // its signatures are verified
}

func (a *appraisal) tdx() {
	e := &tdxEvidence{}
	a.check(CheckReport, "", func() result {
		q, err := tdx.ParseQuote(a.ev.Report)
		if err != nil {
			return found("", err)
		}
		e.quote, a.bound = q, q.ReportData[:]
		return found(fmt.Sprintf("TDX quote version %d, attributes %x, %d bytes of padding", q.Version, q.TDAttributes, q.Padding), nil)
	})
	a.tdxChain(e)
	a.tdxSignatures(e)
	a.tdxEventLog(e)
	a.tdxFacts(e)
	if e.quote != nil && e.chain != nil {
		a.collateral = func() result { return a.tdxCollateral(e) }
	}
}

func (e *tdxEvidence) missing() string {
	switch {
	case e.quote == nil:
		return "report"
	case e.chain == nil:
		return "certificates"
	}
	return ""
}

func (a *appraisal) tdxChain(e *tdxEvidence) {
	missing := ""
	if e.quote == nil {
		missing = "report"
	}
	var err error
	a.check(CheckCertificates, missing, func() result {
		e.chain, err = a.req.Cache.tdx.Chain(e.quote.PCKChain)
		if err != nil && attest.FailureCode(err) != tdx.CodeChain {
			missing = "certificates"
			return found("", err)
		}
		return found("PCK, PCK CA and root", nil)
	})
	a.check(CheckChain, missing, func() result {
		if err != nil {
			return found("", err)
		}
		a.v.Root, a.v.Simulated = policy.DigestOf(e.chain.Root.Raw), e.chain.Simulated()
		return found("root "+string(a.v.Root), nil)
	})
	a.check(CheckDates, e.missing(), func() result {
		return found("valid at "+stamp(a.req.Now)+", PCK until "+stamp(e.chain.Leaf.NotAfter), e.chain.CheckDates(a.req.Now))
	})
}

func (a *appraisal) tdxSignatures(e *tdxEvidence) {
	missing := e.missing()
	a.check(CheckQESignature, missing, func() result { return found("ECDSA P-256 by the PCK", e.quote.VerifyQE(e.chain)) })
	if e.quote != nil {
		missing = "" // the rest needs no chain
	}
	a.check(CheckQEBinding, missing, func() result { return found("the attestation key's hash", e.quote.CheckBinding()) })
	a.check(CheckSignature, missing, func() result {
		return found("ECDSA P-256 by the attestation key", e.quote.VerifySignature())
	})
	a.check(CheckTDAttributes, missing, func() result {
		return found(hex.EncodeToString(e.quote.TDAttributes[:]), e.quote.CheckAttributes())
	})
}

func (a *appraisal) tdxEventLog(e *tdxEvidence) {
	if e.quote != nil && len(a.ev.EventLog) == 0 {
		a.notApplicable(CheckEventLog, "no event log beside the quote")
		return
	}
	missing := ""
	if e.quote == nil {
		missing = "report"
	}
	a.check(CheckEventLog, missing, func() result {
		events, err := tdx.ParseEventLog(a.ev.EventLog)
		if err == nil {
			err = e.quote.CheckEventLog(events)
		}
		if err != nil {
			return found("", err)
		}
		a.guest.Events = make([]policy.Register, 0, len(events))
		for i := range events {
			a.guest.Events = append(a.guest.Events, policy.Register{Name: rtmr(events[i].RTMR), Value: hex.EncodeToString(events[i].Digest[:])})
		}
		return found(fmt.Sprintf("%d events lead to the quote's RTMRs", len(events)), nil)
	})
}

func rtmr(i int) string { return "rtmr" + strconv.Itoa(i) }

// tdxFacts translates the quote for the policy.
func (a *appraisal) tdxFacts(e *tdxEvidence) {
	q := e.quote
	if q == nil {
		return
	}
	a.v.Measurement, a.v.HostData = hex.EncodeToString(q.MRTD[:]), hex.EncodeToString(q.MRConfigID[:])
	for i := range q.RTMR {
		a.v.Registers = append(a.v.Registers, policy.Register{Name: rtmr(i), Value: hex.EncodeToString(q.RTMR[i][:])})
	}
	a.guest.Debug, a.guest.Migration, a.guest.Perfmon, a.guest.SeptVEDisable = q.Debug(), q.Migratable(), q.Perfmon(), q.SeptVEDisable()
	a.guest.Owner, a.guest.OwnerConfig = hex.EncodeToString(q.MROwner[:]), hex.EncodeToString(q.MROwnerConfig[:])
	a.guest.XFAM = hex.EncodeToString(q.XFAM[:])
	a.guest.ServiceTD = policy.None
	if service, ok := q.ServiceTD(); ok {
		a.guest.ServiceTD = hex.EncodeToString(service[:])
	}
	if e.chain == nil {
		return
	}
	pck := e.chain.PCK
	a.v.Product = hex.EncodeToString(pck.FMSPC[:])
	a.v.Machine = hex.EncodeToString(pck.PIID[:])
	if pck.PIID == [16]byte{} { // of a processor that is alone in its platform
		a.v.Machine = policy.MachinePPID + hex.EncodeToString(pck.PPID[:])
	}
	a.ready = true
}

// tdxCollateral establishes what Intel says about the platform.
func (a *appraisal) tdxCollateral(e *tdxEvidence) result {
	items := slices.Concat(a.req.Collateral, a.ev.Collateral)
	ev, err := a.req.Cache.tdx.Evaluate(e.quote, e.chain, items, a.req.Now)
	if err != nil {
		return found("", err)
	}
	a.v.TDXTCB = policy.TDXTCB{Status: string(ev.Status), Advisories: ev.Advisories, EvaluationNumber: ev.EvaluationNumber}
	a.guest.CollateralAge = age(a.req.Now, ev.Issued)
	return found(fmt.Sprintf("%s, issued %s, good until %s", a.v.TDXTCB, stamp(ev.Issued), stamp(ev.NextUpdate)), nil)
}
