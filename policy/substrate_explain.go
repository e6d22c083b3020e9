// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// SubstrateRules lists the rules a substrate makes for a TEE, in the order in
// which AcceptSubstrate answers them.
func SubstrateRules(tee string) []Code {
	rules := []Code{
		CodeTEE, CodeProduct, CodeParavisor, CodeSimulated, CodeRoot, CodeMeasurement, CodeHostData, CodeRegisters, CodeMachineUnpinned, CodeCollateral,
	}
	if tee == TEETDX {
		return append(rules, CodeTCBStatus, CodeTCBEvaluation, CodeTCBAdvisories,
			CodeDebug, CodeMigration, CodePerfmon, CodeSeptVE, CodeXFAM, CodeOwner, CodeOwnerConfig, CodeServiceTD, CodeEvents, CodeCollateralAge)
	}
	return append(rules, CodeTCBFloor, CodeDebug, CodeMigration, CodeSMT, CodeSocket, CodeABI, CodeVMPL, CodeGuestSVN,
		CodeSigningKey, CodeLaunchTCB, CodeProvisional, CodeIDKey, CodeAuthorKey, CodePlatform, CodeCollateralAge)
}

// explain gives every rule's outcome, in a fixed order: what kind of machine,
// who vouches for it, what runs on it, which one it is, how current it is.
func (s *substrateIndex) explain(f *SubstrateFacts, now int64) []RuleResult {
	simulatedRemedy := "simulated evidence proves nothing: use a real machine"
	if s.Simulated {
		simulatedRemedy = "this substrate is for development only"
	}
	rules := []RuleResult{
		s.rule(CodeTEE, "tee", s.TEE == f.TEE, s.TEE, f.TEE, ""),
		s.rule(CodeProduct, "product", s.acceptsProduct(f.Product), s.Product, f.Product, ""),
		s.rule(CodeParavisor, "paravisor", s.Paravisor == f.Paravisor, s.Paravisor, f.Paravisor, ""),
		s.rule(CodeSimulated, "simulated", s.Simulated == f.Simulated, fmt.Sprint(s.Simulated), fmt.Sprint(f.Simulated), simulatedRemedy),
		s.among(CodeRoot, "roots", &s.roots, string(f.Root), "list the vendor root's digest if you trust it", now),
		s.among(CodeMeasurement, "measurements", &s.measurements, f.Measurement, "list the launch digest of the image that runs there, if it is yours", now),
		s.among(CodeHostData, "hostData", &s.hostData, f.HostData, "launch the machine with the digest of your operators in its host data", now),
		s.explainRegisters(f.Registers, now),
		s.among(CodeMachineUnpinned, "machines", &s.machines, f.Machine, "list the machine if it is yours", now),
	}
	collateral := s.rule(CodeCollateral, "collateral.use", f.Collateral, s.Collateral.Use, checked(f.Collateral), "give the vendor's collateral beside the evidence: see c8s collateral")
	if s.Collateral.Use == CollateralUnchecked {
		collateral = s.notApplicable(CodeCollateral, "collateral.use", CollateralUnchecked, checked(f.Collateral))
	}
	return append(append(rules, collateral), s.explainTCB(f, now)...)
}

func checked(b bool) string {
	if b {
		return "judged by the vendor's collateral"
	}
	return "not judged"
}

func (s *substrateIndex) explainTCB(f *SubstrateFacts, now int64) []RuleResult {
	if s.SNP != nil {
		return []RuleResult{s.rule(CodeTCBFloor, "snp.minTCB", f.TCB.AtLeast(*s.SNP.MinTCB), "at least "+s.SNP.MinTCB.String(), f.TCB.String(), "update the machine's firmware")}
	}
	evaluation := fmt.Sprintf("at least %d", s.TDX.MinEvaluationNumber)
	if !s.judgesTDX(f) {
		const why = "unknown without collateral"
		return []RuleResult{
			s.notApplicable(CodeTCBStatus, "tdx.statuses", s.tdx.statuses.describe(now), why),
			s.notApplicable(CodeTCBEvaluation, "tdx.minEvaluationNumber", evaluation, why),
			s.notApplicable(CodeTCBAdvisories, "tdx.advisories", s.tdx.advisories.describe(now), why),
		}
	}
	return []RuleResult{
		s.among(CodeTCBStatus, "tdx.statuses", &s.tdx.statuses, f.TDXTCB.Status, "update the platform, or accept the status if its advisories do not concern you", now),
		s.rule(CodeTCBEvaluation, "tdx.minEvaluationNumber", f.TDXTCB.EvaluationNumber >= s.TDX.MinEvaluationNumber, evaluation, fmt.Sprint(f.TDXTCB.EvaluationNumber), "fetch newer collateral"),
		s.explainAdvisories(f, now),
	}
}

func (s *substrateIndex) explainGuest(g GuestFacts, now int64) []RuleResult {
	rules := s.explainSNPGuest(g, now)
	if s.TDX != nil {
		rules = s.explainTDXGuest(g, now)
	}
	const day = 24 * time.Hour
	limit, age := time.Duration(s.Collateral.MaxAgeDays)*day, g.CollateralAge
	want, got := fmt.Sprintf("at most %d days", s.Collateral.MaxAgeDays), fmt.Sprintf("%.1f days", age.Hours()/24)
	if s.Collateral.Use == CollateralUnchecked {
		return append(rules, s.notApplicable(CodeCollateralAge, "collateral.maxAgeDays", CollateralUnchecked, got))
	}
	return append(rules, s.rule(CodeCollateralAge, "collateral.maxAgeDays", age <= limit, want, got, "fetch newer collateral"))
}

func (s *substrateIndex) explainSNPGuest(g GuestFacts, now int64) []RuleResult {
	if s.SNP == nil {
		return nil
	}
	p := s.SNP
	missing := ""
	for _, flag := range p.RequirePlatform {
		if !slices.Contains(g.Platform, flag) {
			missing = flag
		}
	}
	platform := listed(g.Platform)
	if missing != "" {
		platform = "without " + missing + "; has " + platform
	}
	return []RuleResult{
		s.permit(CodeDebug, "snp.guest.allowDebug", p.Guest.AllowDebug, g.Debug),
		s.permit(CodeMigration, "snp.guest.allowMigration", p.Guest.AllowMigration, g.Migration),
		s.permit(CodeSMT, "snp.guest.allowSMT", p.Guest.AllowSMT, g.SMT),
		s.rule(CodeSocket, "snp.guest.requireSingleSocket", g.SingleSocket || !p.Guest.RequireSingleSocket, requirement(p.Guest.RequireSingleSocket), fmt.Sprint(g.SingleSocket), "launch the guest for one socket"),
		s.rule(CodeABI, "snp.guest.minABI", g.ABI.AtLeast(p.Guest.MinABI), "at least "+p.Guest.MinABI.String(), g.ABI.String(), "launch the guest with a policy that asks for newer firmware"),
		s.rule(CodeVMPL, "snp.guest.vmpl", p.Guest.VMPL == g.VMPL, fmt.Sprint(p.Guest.VMPL), fmt.Sprint(g.VMPL), "request evidence from that privilege level"),
		s.rule(CodeGuestSVN, "snp.minGuestSVN", g.GuestSVN >= p.MinGuestSVN, fmt.Sprintf("at least %d", p.MinGuestSVN), fmt.Sprint(g.GuestSVN), "launch a newer image"),
		s.rule(CodeSigningKey, "snp.signingKey", p.SigningKey == g.SigningKey, p.SigningKey, g.SigningKey, "ask the provider for reports signed by that key"),
		s.rule(CodeLaunchTCB, "snp.minLaunchTCB", g.LaunchTCB.AtLeast(*p.MinLaunchTCB), "at least "+p.MinLaunchTCB.String(), g.LaunchTCB.String(), "start the guest again on the updated machine"),
		s.permit(CodeProvisional, "snp.allowProvisional", p.AllowProvisional, g.Provisional),
		s.among(CodeIDKey, "snp.idKeys", &s.snp.idKeys, g.IDKey, "launch the guest with an ID block signed by that key", now),
		s.among(CodeAuthorKey, "snp.authorKeys", &s.snp.authorKeys, g.AuthorKey, "have the author sign the ID key", now),
		s.rule(CodePlatform, "snp.requirePlatform", missing == "", listed(p.RequirePlatform), platform, "configure the machine's firmware"),
	}
}

func (s *substrateIndex) explainTDXGuest(g GuestFacts, now int64) []RuleResult {
	p := s.TDX
	return []RuleResult{
		s.permit(CodeDebug, "tdx.guest.allowDebug", p.Guest.AllowDebug, g.Debug),
		s.permit(CodeMigration, "tdx.guest.allowMigration", p.Guest.AllowMigration, g.Migration),
		s.permit(CodePerfmon, "tdx.guest.allowPerfmon", p.Guest.AllowPerfmon, g.Perfmon),
		s.rule(CodeSeptVE, "tdx.guest.requireSeptVEDisable", g.SeptVEDisable || !p.Guest.RequireSeptVEDisable, requirement(p.Guest.RequireSeptVEDisable), fmt.Sprint(g.SeptVEDisable), "launch the guest with SEPT_VE_DISABLE"),
		s.among(CodeXFAM, "tdx.xfams", &s.tdx.xfams, g.XFAM, "launch the guest with those extended features", now),
		s.among(CodeOwner, "tdx.owners", &s.tdx.owners, g.Owner, "launch the guest with that owner", now),
		s.among(CodeOwnerConfig, "tdx.ownerConfigs", &s.tdx.ownerConfigs, g.OwnerConfig, "launch the guest with that configuration", now),
		s.among(CodeServiceTD, "tdx.serviceTDs", &s.tdx.serviceTDs, g.ServiceTD, "launch the guest with that service TD", now),
		s.explainEvents(g.Events, now),
	}
}

// explainEvents judges the registers whose accepted value is "log": all that
// the log extended them with must be listed.
func (s *substrateIndex) explainEvents(events []Register, now int64) RuleResult {
	const field = "tdx.events"
	want := fmt.Sprintf("only the %d listed events", len(s.TDX.Events))
	if len(s.logged) == 0 {
		return s.notApplicable(CodeEvents, field, want, "no register is judged by its log")
	}
	const remedy = "give the event log with the evidence, and list the digests of its events"
	if events == nil {
		return s.rule(CodeEvents, field, false, want, "no event log that replays", remedy)
	}
	for _, e := range events {
		if !s.tdx.events.has(e.Value, now) && slices.Contains(s.logged, e.Name) {
			r := s.rule(CodeEvents, field, false, want, e.Name+" "+e.Value, remedy)
			if since, ok := s.tdx.events.expired(e.Value, now); ok {
				r.expire(since)
			}
			return r
		}
	}
	return s.rule(CodeEvents, field, true, want, fmt.Sprintf("%d events", len(events)), "")
}

// explainRegisters names the first register that is not accepted.
func (s *substrateIndex) explainRegisters(got []Register, now int64) RuleResult {
	expected, actual, since := s.describeRegisters(got, now)
	r := s.rule(CodeRegisters, "registers", s.acceptsRegisters(got, now), expected, actual, "list the value if the software that gives it is yours")
	if since != never {
		r.expire(since)
	}
	return r
}

func (s *substrateIndex) explainAdvisories(f *SubstrateFacts, now int64) RuleResult {
	open := None
	if len(f.TDXTCB.Advisories) > 0 {
		open = strings.Join(f.TDXTCB.Advisories, ", ")
	}
	list := &s.tdx.advisories
	r := s.rule(CodeTCBAdvisories, "tdx.advisories", s.acceptsAdvisories(f, now), list.describe(now), open, "update the platform, or list the advisories you accept")
	for _, id := range f.TDXTCB.Advisories {
		if list.has(id, now) {
			continue
		}
		if since, ok := list.expired(id, now); ok {
			r.Actual = shorten(id)
			r.expire(since)
		}
		break
	}
	return r
}

func (s *substrateIndex) permit(code Code, field string, allowed, got bool) RuleResult {
	return s.rule(code, field, allowed || !got, permission(allowed), permission(got), "launch the guest without it")
}

func permission(b bool) string {
	if b {
		return "permitted"
	}
	return "not permitted"
}

func requirement(b bool) string {
	if b {
		return "true"
	}
	return "true or false"
}

func listed(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// among is the rule of a list. A value that has expired is as good as not
// listed, but the refusal says so.
func (s *substrateIndex) among(code Code, field string, list *accepted, got, remedy string, now int64) RuleResult {
	r := s.rule(code, field, list.has(got, now), list.describe(now), got, remedy)
	if since, ok := list.expired(got, now); ok {
		r.expire(since)
	}
	return r
}

func (s *substrateIndex) rule(code Code, field string, ok bool, expected, actual, remedy string) RuleResult {
	d := Decision{Allowed: ok, Code: code, Rule: s.path + "." + field, Expected: expected, Actual: shorten(actual)}
	if ok {
		d.Code = CodeAllowed
	} else {
		d.Remedy = remedy
	}
	return RuleResult{ID: string(code), Decision: d}
}

func (s *substrateIndex) notApplicable(code Code, field, expected, actual string) RuleResult {
	r := s.rule(code, field, true, expected, actual, "")
	r.NotApplicable = true
	return r
}

func (t TCB) String() string {
	s := fmt.Sprintf("bootLoader=%d tee=%d snp=%d microcode=%d", t.BootLoader, t.TEE, t.SNP, t.Microcode)
	if t.FMC != 0 {
		s = fmt.Sprintf("fmc=%d ", t.FMC) + s
	}
	return s
}

func (v ABIVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func oneOf[T ~string](list []T) string {
	const shown = 4
	var b strings.Builder
	if len(list) > 1 {
		b.WriteString("one of ")
	}
	for i, v := range list {
		if i == shown {
			fmt.Fprintf(&b, " and %d more", len(list)-shown)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	return b.String()
}

// shorten passes clean values through, so that they can be copied from a
// message, and escapes and cuts everything else.
func shorten(s string) string {
	if s == "" {
		return "nothing"
	}
	if isPrintableUpTo(s, maxShown) {
		return s
	}
	return quote(s)
}
