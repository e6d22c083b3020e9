// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

const docRules = "the policy, "

// policy asks the policy about the facts, judges the collateral as the matching
// substrate asks for it, and lists the substrate's rules one by one.
func (a *appraisal) policy() {
	collateral := a.evaluateCollateral() // before the policy: it establishes facts
	if !a.ready || a.req.Policy == nil {
		a.judgeCollateral(nil, collateral)
		a.rulesNotReached()
		return
	}
	match := a.req.Policy.AcceptSubstrate(a.req.Role, a.v.SubstrateFacts, a.guest, a.req.Now)
	a.judgeCollateral(match.Substrate, collateral)
	a.rules(match)
	if match.Substrate != nil {
		a.v.Substrate = match.Substrate.Name
	}
	if a.committed != nil {
		a.committed(match.Substrate)
	}
}

func (a *appraisal) rules(match policy.SubstrateMatch) {
	seen := make(map[string]bool, len(match.Rules))
	for _, rule := range match.Rules {
		seen[rule.ID] = true
		a.add(ruleCheck(rule.ID, rule.NotApplicable, rule.Decision))
	}
	if !match.Allowed { // whatever the rules said, the decision counts
		a.add(ruleCheck(string(CheckDecision), false, match.Decision))
	}
	for _, code := range policy.SubstrateRules(a.v.TEE) {
		if match.Substrate == nil && !seen[string(code)] {
			a.ruleNotReached(code, "substrate")
		}
	}
}

func (a *appraisal) rulesNotReached() {
	for _, code := range policy.SubstrateRules(a.v.TEE) {
		a.ruleNotReached(code, "report, certificates or policy")
	}
	if a.committed != nil {
		a.committed(nil)
	}
}

func (a *appraisal) ruleNotReached(code policy.Code, missing string) {
	a.add(attest.Check{
		ID: string(code), Status: attest.Fail, Code: CodeNotReached, Source: docRules + "substrates",
		Expected: "a substrate's rule", Actual: "not checked: no usable " + missing,
	})
}

func ruleCheck(id string, notApplicable bool, d policy.Decision) attest.Check {
	c := attest.Check{ID: id, Status: attest.Pass, Expected: d.Expected, Actual: d.Actual, Source: docRules + d.Rule, Remedy: d.Remedy}
	switch {
	case !d.Allowed:
		c.Status, c.Code = attest.Fail, string(d.Code)
	case notApplicable:
		c.Status = attest.NotApplicable
	}
	return c
}

// evaluateCollateral lets the TEE's part judge the collateral.
func (a *appraisal) evaluateCollateral() *result {
	if a.collateral == nil {
		return nil
	}
	r := a.collateral()
	a.v.Collateral = r.err == nil
	return &r
}

// judgeCollateral decides what the outcome means: a substrate may say that it
// does not ask, but what the vendor has revoked stays refused.
func (a *appraisal) judgeCollateral(s *policy.Substrate, r *result) {
	switch {
	case r == nil:
		a.check(CheckCollateral, "report or certificates", nil)
	case r.err != nil && s != nil && s.Collateral.Use == policy.CollateralUnchecked && !revoked(r.err):
		a.notApplicable(CheckCollateral, policy.CollateralUnchecked+" by the policy: "+r.err.Error())
	default:
		a.check(CheckCollateral, "", func() result { return *r })
	}
}

func revoked(err error) bool { return attest.FailureCode(err) == CodeRevoked }

// OnlyStale reports whether evidence was refused for nothing but collateral
// that is missing or out of date, so that newer collateral may help.
func OnlyStale(v *attest.Verdict) bool {
	stale := false
	for _, c := range v.Checks {
		if c.Status == attest.Pass || c.Status == attest.NotApplicable {
			continue
		}
		switch c.Code {
		case CodeCollateralMissing, CodeCollateralExpired, string(policy.CodeCollateralAge):
			stale = true
		case string(policy.CodeCollateral), string(policy.CodeTCBStatus), string(policy.CodeTCBEvaluation), string(CheckDecision):
			// follow from it
		default:
			return false
		}
	}
	return stale
}
