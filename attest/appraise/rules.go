// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// manifestRules are the rules a manifest makes. They are all in a verdict,
// also when the manifest could not be asked.
func manifestRules() []policy.Code {
	return []policy.Code{
		policy.CodeTEE, policy.CodeProduct, policy.CodeSimulated, policy.CodeRoot, policy.CodeMeasurement,
		policy.CodeHostData, policy.CodeTCBFloor, policy.CodeMachineUnpinned,
		policy.CodeDebug, policy.CodeMigration, policy.CodeSMT, policy.CodeVMPL,
	}
}

// policy asks the manifest about the facts and lists its rules one by one.
func (a *appraisal) policy(req Request) {
	reported, committed, err := a.tcb()
	a.v.TCB = lower(reported, committed)
	if a.report == nil || a.chain == nil || a.product == "" || err != nil || req.Manifest == nil {
		a.rulesNotReached()
		return
	}
	match := req.Manifest.AcceptSubstrate(req.Role, a.v.Facts(), policy.GuestFacts{
		Debug: a.report.Debug(), Migration: a.report.Migration(), SMT: a.report.SMT(), VMPL: a.report.VMPL,
	})
	seen := make(map[string]bool, len(match.Rules))
	for _, rule := range match.Rules {
		seen[rule.ID] = true
		a.add(checkOf(rule.ID, rule.Decision))
	}
	if !match.Allowed { // whatever the rules said, the decision counts
		a.add(checkOf(CheckDecision, match.Decision))
	}
	for _, code := range manifestRules() {
		if !seen[string(code)] {
			a.notReached(string(code), docRules+"substrates", "a substrate's rule", "substrate")
		}
	}
	var floor *policy.TCB
	if match.Substrate != nil {
		a.v.Substrate, floor = match.Substrate.Name, match.Substrate.MinTCB
	}
	a.tcbCommitted(floor, reported, committed)
}

func (a *appraisal) rulesNotReached() {
	for _, code := range manifestRules() {
		a.notReached(string(code), docRules+"substrates", "a substrate's rule", "report, certificates or manifest")
	}
	a.notReached(CheckTCBCommitted, docABI+"TCB_VERSION", "the manifest's floor", "report, certificates or manifest")
}

func checkOf(id string, d policy.Decision) attest.Check {
	c := attest.Check{ID: id, Status: attest.Pass, Expected: d.Expected, Actual: d.Actual, Source: docRules + d.Rule, Remedy: d.Remedy}
	if !d.Allowed {
		c.Status, c.Code = attest.Fail, string(d.Code)
	}
	return c
}

// tcb reads the reported TCB, which the VCEK confirms, and the committed one,
// below which the machine cannot be taken back.
func (a *appraisal) tcb() (reported, committed policy.TCB, err error) {
	if a.report == nil || a.product == "" {
		return
	}
	if reported, err = a.product.TCB(a.report.Reported); err != nil {
		return
	}
	committed, err = a.product.TCB(a.report.Committed)
	return
}

// tcbCommitted names the committed TCB. The floor itself is already judged on
// the lower of both; this says which one was too low.
func (a *appraisal) tcbCommitted(floor *policy.TCB, reported, committed policy.TCB) {
	c := attest.Check{
		ID: CheckTCBCommitted, Status: attest.Pass, Source: docABI + "COMMITTED_TCB and REPORTED_TCB",
		Expected: "both at least the manifest's floor", Actual: fmt.Sprintf("committed %s, reported %s", committed, reported),
	}
	switch {
	case floor == nil:
		c.Status, c.Code = attest.Fail, CodeNotReached
		c.Actual = "not checked: no usable substrate"
	case !committed.AtLeast(*floor) || !reported.AtLeast(*floor):
		c.Status, c.Code = attest.Fail, CodeTCBCommitted
		c.Expected = "both at least " + floor.String()
		c.Remedy = "update the machine's firmware and commit it"
	default:
		c.Expected = "both at least " + floor.String()
	}
	a.add(c)
}

func lower(a, b policy.TCB) policy.TCB {
	return policy.TCB{
		FMC: min(a.FMC, b.FMC), BootLoader: min(a.BootLoader, b.BootLoader), TEE: min(a.TEE, b.TEE),
		SNP: min(a.SNP, b.SNP), Microcode: min(a.Microcode, b.Microcode),
	}
}
