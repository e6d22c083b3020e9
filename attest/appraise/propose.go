// SPDX-License-Identifier: Apache-2.0

package appraise

import (
	"math"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// Propose returns the substrate that accepts what the evidence shows, and
// nothing else, together with the verdict on all that is not a policy's
// question. It is a draft for people to read: that a machine says so does not
// make it trustworthy. What the evidence cannot show (roles, which of several
// machines) is left to the strictest: the one machine, no roles.
func Propose(ev *attest.Evidence, req Request) (policy.Substrate, *attest.Verdict) {
	req.Policy = nobody{}
	a := appraise(ev, req)
	a.v.Checks = slices.DeleteFunc(a.v.Checks, func(c attest.Check) bool {
		return c.ID == string(CheckDecision) || c.ID == string(CheckTCBCommitted) || slices.Contains(policy.SubstrateRules(a.v.TEE), policy.Code(c.ID))
	})
	a.v.Conclude()
	return a.propose(), a.v
}

// nobody accepts nothing: the facts alone are wanted.
type nobody struct{}

func (nobody) AcceptSubstrate(policy.Role, policy.SubstrateFacts, policy.GuestFacts, time.Time) policy.SubstrateMatch {
	return policy.SubstrateMatch{Substrate: &policy.Substrate{Collateral: policy.CollateralRules{Use: policy.CollateralUnchecked}}}
}

func (a *appraisal) propose() policy.Substrate {
	f, g := a.v.SubstrateFacts, a.guest
	s := policy.Substrate{
		Name: "proposed", TEE: f.TEE, Product: f.Product, Paravisor: f.Paravisor, Simulated: f.Simulated,
		Roots: []policy.Digest{f.Root}, Machines: []string{f.Machine}, Measurements: []string{f.Measurement}, HostData: []string{f.HostData},
		Registers:  map[string][]string{},
		Collateral: policy.CollateralRules{Use: policy.CollateralUnchecked},
	}
	for _, r := range f.Registers {
		s.Registers[r.Name] = []string{r.Value}
	}
	if f.Collateral {
		days := uint32(math.Ceil(g.CollateralAge.Hours() / 24)) //nolint:gosec // some years at most
		s.Collateral = policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: max(days, 1)}
	}
	if f.TEE == attest.TEETDX {
		s.TDX = proposeTDX(f, g)
		return s
	}
	floor, launch := f.TCB, g.LaunchTCB
	s.SNP = &policy.SNPRules{
		SigningKey: g.SigningKey, MinTCB: &floor, MinLaunchTCB: &launch, AllowProvisional: g.Provisional, MinGuestSVN: g.GuestSVN,
		IDKeys: []string{g.IDKey}, AuthorKeys: []string{g.AuthorKey}, RequirePlatform: g.Platform,
		Guest: policy.SNPGuest{
			AllowDebug: g.Debug, AllowMigration: g.Migration, AllowSMT: g.SMT,
			RequireSingleSocket: g.SingleSocket, MinABI: g.ABI, VMPL: g.VMPL,
		},
	}
	return s
}

func proposeTDX(f policy.SubstrateFacts, g policy.GuestFacts) *policy.TDXRules {
	t := &policy.TDXRules{
		Statuses: []string{"UpToDate"}, Advisories: []string{policy.None}, MinEvaluationNumber: f.TDXTCB.EvaluationNumber,
		Owners: []string{g.Owner}, OwnerConfigs: []string{g.OwnerConfig}, ServiceTDs: []string{g.ServiceTD}, XFAMs: []string{g.XFAM},
		Guest: policy.TDXGuest{AllowDebug: g.Debug, AllowMigration: g.Migration, AllowPerfmon: g.Perfmon, RequireSeptVEDisable: g.SeptVEDisable},
	}
	if slices.Contains(policy.TCBStatuses(), f.TDXTCB.Status) {
		t.Statuses = []string{f.TDXTCB.Status}
	}
	if len(f.TDXTCB.Advisories) > 0 {
		t.Advisories = f.TDXTCB.Advisories
	}
	return t
}
