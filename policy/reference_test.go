// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// appraisal returns the text of an appraisal policy with the substrate, edited
// as loose JSON.
func appraisal(t testing.TB, s policy.Substrate, edit func(substrate map[string]any)) []byte {
	t.Helper()
	text, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{s}})
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	edit(doc["substrates"].([]any)[0].(map[string]any))
	if text, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	return text
}

func parsed(t testing.TB, s policy.Substrate) *policy.AppraisalPolicy {
	t.Helper()
	p, err := policy.ParseAppraisalPolicy(appraisal(t, s, func(map[string]any) {}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTrustDomainsAreDescribedCompletely(t *testing.T) {
	tdx := func(s map[string]any) map[string]any { return s["tdx"].(map[string]any) }
	registers := func(s map[string]any) map[string]any { return s["registers"].(map[string]any) }
	for name, c := range map[string]struct {
		edit func(s map[string]any)
		code policy.Code
		path string
	}{
		"SNP's rules":           {func(s map[string]any) { s["snp"] = map[string]any{} }, policy.CodeUnknownField, ".snp"},
		"no rules":              {func(s map[string]any) { delete(s, "tdx") }, policy.CodeMissingField, ".tdx"},
		"no RTMR":               {func(s map[string]any) { delete(registers(s), "rtmr2") }, policy.CodeMissingField, ".registers.rtmr2"},
		"RTMR 4":                {func(s map[string]any) { registers(s)["rtmr4"] = []any{"any"} }, policy.CodeRegisterUnknown, ".registers.rtmr4"},
		"RTMR of no value":      {func(s map[string]any) { registers(s)["rtmr0"] = []any{} }, policy.CodeListEmpty, ".registers.rtmr0"},
		"RTMR of 32 bytes":      {func(s map[string]any) { registers(s)["rtmr0"] = []any{policytest.Hex(1, 32)} }, policy.CodeHexInvalid, ".registers.rtmr0[0]"},
		"log without events":    {func(s map[string]any) { registers(s)["rtmr3"] = []any{"log"} }, policy.CodeListEmpty, ".tdx.events"},
		"log among values":      {func(s map[string]any) { registers(s)["rtmr3"] = []any{"log", policytest.Hex(1, 48)} }, policy.CodeHexInvalid, ".registers.rtmr3[0]"},
		"product":               {func(s map[string]any) { s["product"] = "Milan" }, policy.CodeHexInvalid, ".product"},
		"host data of SNP":      {func(s map[string]any) { s["hostData"] = []any{policytest.Hex(0, 32)} }, policy.CodeHexInvalid, ".hostData[0]"},
		"chip id":               {func(s map[string]any) { s["machines"] = []any{policytest.Hex(1, 64)} }, policy.CodeHexInvalid, ".machines[0]"},
		"provider of a VLEK":    {func(s map[string]any) { s["machines"] = []any{"csp:x"} }, policy.CodeHexInvalid, ".machines[0]"},
		"no status":             {func(s map[string]any) { tdx(s)["statuses"] = []any{} }, policy.CodeListEmpty, ".tdx.statuses"},
		"revoked":               {func(s map[string]any) { tdx(s)["statuses"] = []any{"Revoked"} }, policy.CodeStatusUnknown, ".tdx.statuses[0]"},
		"any status":            {func(s map[string]any) { tdx(s)["statuses"] = []any{"any"} }, policy.CodeStatusUnknown, ".tdx.statuses[0]"},
		"advisory":              {func(s map[string]any) { tdx(s)["advisories"] = []any{"CVE-1"} }, policy.CodeNameInvalid, ".tdx.advisories[0]"},
		"no advisories":         {func(s map[string]any) { tdx(s)["advisories"] = []any{} }, policy.CodeListEmpty, ".tdx.advisories"},
		"owner":                 {func(s map[string]any) { tdx(s)["owners"] = []any{"none"} }, policy.CodeHexInvalid, ".tdx.owners[0]"},
		"no XFAM":               {func(s map[string]any) { tdx(s)["xfams"] = []any{} }, policy.CodeListEmpty, ".tdx.xfams"},
		"event":                 {func(s map[string]any) { tdx(s)["events"] = []any{"any"} }, policy.CodeHexInvalid, ".tdx.events[0]"},
		"evaluation as a text":  {func(s map[string]any) { tdx(s)["minEvaluationNumber"] = "17" }, policy.CodeWrongType, ".tdx.minEvaluationNumber"},
		"guest without a field": {func(s map[string]any) { tdx(s)["guest"] = map[string]any{"allowDebug": false} }, policy.CodeMissingField, ".tdx.guest.allowMigration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.ParseAppraisalPolicy(appraisal(t, policytest.TDXSubstrate(), c.edit))
			wantProblem(t, err, c.code, "$.substrates[0]"+c.path)
		})
	}
}

func TestProductionTrustDomainsAreCheckedAndClosed(t *testing.T) {
	for path, edit := range map[string]func(*policy.Substrate){
		".collateral.use":       func(s *policy.Substrate) { s.Collateral.Use = policy.CollateralUnchecked },
		".tdx.guest.allowDebug": func(s *policy.Substrate) { s.TDX.Guest.AllowDebug = true },
		".simulated":            func(s *policy.Substrate) { s.Simulated = true },
	} {
		s := policytest.TDXSubstrate()
		edit(&s)
		_, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Production: true, Substrates: []policy.Substrate{s}})
		if err == nil || !strings.Contains(err.Error(), "$.substrates[0]"+path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Each rule by itself refuses, with its own code, and no other rule does.
func TestEveryRuleOfATrustDomain(t *testing.T) {
	set := func(i int, value string) func(*policy.SubstrateFacts, *policy.GuestFacts) {
		return func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.Registers = slices.Clone(f.Registers)
			f.Registers[i].Value = value
		}
	}
	for name, c := range map[string]struct {
		edit func(*policy.SubstrateFacts, *policy.GuestFacts)
		code policy.Code
	}{
		"good":              {func(*policy.SubstrateFacts, *policy.GuestFacts) {}, policy.CodeAllowed},
		"any RTMR0":         {set(0, policytest.Hex(0x77, 48)), policy.CodeAllowed},
		"other RTMR2":       {set(2, policytest.Hex(2, 48)), policy.CodeAllowed},
		"paravisor":         {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Paravisor = policy.ParavisorAzure }, policy.CodeParavisor},
		"no paravisor said": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Paravisor = "" }, policy.CodeParavisor},
		"MRTD":              {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Measurement = policytest.Hex(0, 48) }, policy.CodeMeasurement},
		"MRCONFIGID":        {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.HostData = policytest.Hex(1, 48) }, policy.CodeHostData},
		"RTMR1":             {set(1, policytest.Hex(2, 48)), policy.CodeRegisters},
		"RTMR as a word":    {set(1, "any"), policy.CodeRegisters},
		"RTMR missing":      {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Registers = f.Registers[:3] }, policy.CodeRegisters},
		"no registers":      {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Registers = nil }, policy.CodeRegisters},
		"register more": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.Registers = append(slices.Clone(f.Registers), policy.Register{Name: "pcr0", Value: policytest.Hex(0, 32)})
		}, policy.CodeRegisters},
		"register twice": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.Registers = []policy.Register{f.Registers[0], f.Registers[0], f.Registers[1], f.Registers[2]}
		}, policy.CodeRegisters},
		"register of another name": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.Registers = slices.Clone(f.Registers)
			f.Registers[0].Name = "pcr0"
		}, policy.CodeRegisters},
		"status":    {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.TDXTCB.Status = "OutOfDate" }, policy.CodeTCBStatus},
		"no status": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.TDXTCB.Status = "" }, policy.CodeTCBStatus},
		"better status": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.TDXTCB.Status, f.TDXTCB.Advisories = "UpToDate", nil
		}, policy.CodeAllowed},
		"old evaluation": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.TDXTCB.EvaluationNumber = 16 }, policy.CodeTCBEvaluation},
		"unknown advisory": {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) {
			f.TDXTCB.Advisories = []string{"INTEL-SA-00615", "INTEL-SA-01036"}
		}, policy.CodeTCBAdvisories},
		"unchecked":          {func(f *policy.SubstrateFacts, _ *policy.GuestFacts) { f.Collateral = false }, policy.CodeCollateral},
		"debug":              {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.Debug = true }, policy.CodeDebug},
		"migration":          {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.Migration = true }, policy.CodeMigration},
		"perfmon":            {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.Perfmon = true }, policy.CodePerfmon},
		"SEPT #VE":           {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.SeptVEDisable = false }, policy.CodeSeptVE},
		"owner":              {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.Owner = policytest.Hex(1, 48) }, policy.CodeOwner},
		"no owner":           {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.Owner = "" }, policy.CodeOwner},
		"owner's config":     {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.OwnerConfig = policytest.Hex(1, 48) }, policy.CodeOwnerConfig},
		"service TD":         {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.ServiceTD = policytest.Hex(1, 48) }, policy.CodeServiceTD},
		"collateral too old": {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.CollateralAge = 31 * 24 * time.Hour }, policy.CodeCollateralAge},
		"collateral of 30 d": {func(_ *policy.SubstrateFacts, g *policy.GuestFacts) { g.CollateralAge = 30 * 24 * time.Hour }, policy.CodeAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			facts, guest := policytest.TDXFacts(), policytest.TDXGuest()
			c.edit(&facts, &guest)
			match := parsed(t, policytest.TDXSubstrate()).AcceptSubstrate(policy.RoleNode, facts, guest, policytest.Now())
			wantOnly(t, match, policy.TEETDX, c.code)
		})
	}
}

// wantOnly checks that all rules were answered and only the one of code refused.
func wantOnly(t *testing.T, match policy.SubstrateMatch, tee string, code policy.Code) {
	t.Helper()
	wantDecision(t, match.Decision, code)
	var ids []policy.Code
	for _, r := range match.Rules {
		ids = append(ids, policy.Code(r.ID))
		if r.Rule == "" || r.Expected == "" || r.Actual == "" || r.Allowed == (r.ID == string(code)) {
			t.Errorf("rule %+v", r)
		}
	}
	if want := policy.SubstrateRules(tee); !slices.Equal(ids, want) {
		t.Errorf("the rules are %v, want %v", ids, want)
	}
}

func TestEveryRuleOfAnSNPGuest(t *testing.T) {
	key := policytest.Hex(9, 48)
	for name, c := range map[string]struct {
		rules func(*policy.SNPRules)
		guest func(*policy.GuestFacts)
		code  policy.Code
	}{
		"one socket wanted":   {func(s *policy.SNPRules) { s.Guest.RequireSingleSocket = true }, nil, policy.CodeSocket},
		"one socket had":      {func(s *policy.SNPRules) { s.Guest.RequireSingleSocket = true }, func(g *policy.GuestFacts) { g.SingleSocket = true }, policy.CodeAllowed},
		"old ABI":             {func(s *policy.SNPRules) { s.Guest.MinABI = policy.ABIVersion{Major: 1, Minor: 52} }, nil, policy.CodeABI},
		"newer major ABI":     {func(s *policy.SNPRules) { s.Guest.MinABI = policy.ABIVersion{Major: 1, Minor: 52} }, func(g *policy.GuestFacts) { g.ABI = policy.ABIVersion{Major: 2} }, policy.CodeAllowed},
		"old image":           {func(s *policy.SNPRules) { s.MinGuestSVN = 3 }, func(g *policy.GuestFacts) { g.GuestSVN = 2 }, policy.CodeGuestSVN},
		"VLEK":                {nil, func(g *policy.GuestFacts) { g.SigningKey = policy.SigningKeyVLEK }, policy.CodeSigningKey},
		"VLEK wanted":         {func(s *policy.SNPRules) { s.SigningKey = policy.SigningKeyVLEK }, nil, policy.CodeSigningKey},
		"launched by old":     {func(s *policy.SNPRules) { s.MinLaunchTCB = &policy.TCB{SNP: 1} }, nil, policy.CodeLaunchTCB},
		"provisional":         {nil, func(g *policy.GuestFacts) { g.Provisional = true }, policy.CodeProvisional},
		"provisional allowed": {func(s *policy.SNPRules) { s.AllowProvisional = true }, func(g *policy.GuestFacts) { g.Provisional = true }, policy.CodeAllowed},
		"ID key":              {nil, func(g *policy.GuestFacts) { g.IDKey = key }, policy.CodeIDKey},
		"ID key wanted":       {func(s *policy.SNPRules) { s.IDKeys = []string{key} }, nil, policy.CodeIDKey},
		"ID key had":          {func(s *policy.SNPRules) { s.IDKeys = []string{key} }, func(g *policy.GuestFacts) { g.IDKey = key }, policy.CodeAllowed},
		"author key":          {nil, func(g *policy.GuestFacts) { g.AuthorKey = key }, policy.CodeAuthorKey},
		"any author key":      {func(s *policy.SNPRules) { s.AuthorKeys = []string{policy.Any} }, func(g *policy.GuestFacts) { g.AuthorKey = key }, policy.CodeAllowed},
		"platform":            {func(s *policy.SNPRules) { s.RequirePlatform = []string{policy.PlatformECC, policy.PlatformAliasCheck} }, func(g *policy.GuestFacts) { g.Platform = []string{policy.PlatformECC} }, policy.CodePlatform},
	} {
		t.Run(name, func(t *testing.T) {
			s, guest := policytest.Substrate(), policytest.Guest()
			if c.rules != nil {
				c.rules(s.SNP)
			}
			if c.guest != nil {
				c.guest(&guest)
			}
			wantOnly(t, parsed(t, s).AcceptSubstrate(policy.RoleNode, policytest.Facts(), guest, policytest.Now()), policy.TEESEVSNP, c.code)
		})
	}
}

func TestRegistersOfLogAreJudgedByTheirEvents(t *testing.T) {
	good, bad := policytest.Hex(0x10, 48), policytest.Hex(0x11, 48)
	s := policytest.TDXSubstrate()
	s.Registers["rtmr3"], s.TDX.Events = []string{policy.Log}, []string{good}
	p := parsed(t, s)
	facts := policytest.TDXFacts()
	for name, c := range map[string]struct {
		events []policy.Register
		code   policy.Code
	}{
		"no log":           {nil, policy.CodeEvents},
		"empty log":        {[]policy.Register{}, policy.CodeAllowed},
		"listed":           {[]policy.Register{{Name: "rtmr3", Value: good}}, policy.CodeAllowed},
		"not listed":       {[]policy.Register{{Name: "rtmr3", Value: good}, {Name: "rtmr3", Value: bad}}, policy.CodeEvents},
		"of other ones":    {[]policy.Register{{Name: "rtmr0", Value: bad}}, policy.CodeAllowed},
		"listed for other": {[]policy.Register{{Name: "rtmr0", Value: bad}, {Name: "rtmr3", Value: good}}, policy.CodeAllowed},
	} {
		guest := policytest.TDXGuest()
		guest.Events = c.events
		if d := p.AcceptSubstrate(policy.RoleNode, facts, guest, policytest.Now()); d.Code != c.code {
			t.Errorf("%s: %s, want %s", name, d.Code, c.code)
		}
	}
}

func TestUncheckedCollateralIsSaidNotSkipped(t *testing.T) {
	s := policytest.TDXSubstrate()
	s.Collateral = policy.CollateralRules{Use: policy.CollateralUnchecked}
	p := parsed(t, s)
	facts := policytest.TDXFacts()
	facts.Collateral, facts.TDXTCB = false, policy.TDXTCB{}
	match := p.AcceptSubstrate(policy.RoleNode, facts, policytest.TDXGuest(), policytest.Now())
	wantDecision(t, match.Decision, policy.CodeAllowed)
	for _, r := range match.Rules {
		want := slices.Contains([]policy.Code{policy.CodeCollateral, policy.CodeCollateralAge, policy.CodeTCBStatus, policy.CodeTCBEvaluation, policy.CodeTCBAdvisories, policy.CodeEvents}, policy.Code(r.ID))
		if r.NotApplicable != want {
			t.Errorf("%s: not applicable is %v", r.ID, r.NotApplicable)
		}
	}
	// What the vendor is known to say counts all the same.
	facts.Collateral, facts.TDXTCB = true, policy.TDXTCB{Status: "OutOfDate", EvaluationNumber: 18}
	wantDecision(t, p.AcceptSubstrate(policy.RoleNode, facts, policytest.TDXGuest(), policytest.Now()).Decision, policy.CodeTCBStatus)
}

// The connection path and the explanations must never disagree.
func TestBothFormsOfTheRulesAgree(t *testing.T) {
	tdx := policytest.TDXSubstrate()
	tdx.Roles = []policy.Role{policy.RoleNode}
	tdx.Expires = map[string]string{policytest.Hex(0xab, 48): nextYear, policytest.Hex(1, 48): nextYear, "UpToDate": nextYear}
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Expires = map[string]string{string(policytest.Digest("root")): nextYear}
		m.Substrates = append(m.Substrates, tdx)
	}))
	random := rand.New(rand.NewPCG(1, 2))
	values := []string{"", "any", "none", policytest.Hex(0xaa, 48), policytest.Hex(0xab, 48), policytest.Hex(0, 48), policytest.Hex(0, 32), policytest.Hex(1, 48), "tdx", "sev-snp", "azure", "Milan", "UpToDate", "OutOfDate"}
	pick := func(s *string) {
		if random.IntN(8) == 0 {
			*s = values[random.IntN(len(values))]
		}
	}
	accepted := 0
	for range 20_000 {
		p := policytest.Peer(f.Signed, policytest.Web)
		if random.IntN(2) == 0 {
			p.SubstrateFacts = policytest.TDXFacts()
		}
		facts := &p.SubstrateFacts
		for _, s := range []*string{&facts.TEE, &facts.Product, &facts.Paravisor, &facts.Machine, &facts.Measurement, &facts.HostData, &facts.TDXTCB.Status} {
			pick(s)
		}
		facts.Registers = slices.Clone(facts.Registers)
		for i := range facts.Registers {
			pick(&facts.Registers[i].Value)
			pick(&facts.Registers[i].Name)
		}
		facts.Simulated = facts.Simulated != (random.IntN(8) == 0)
		facts.Collateral = facts.Collateral != (random.IntN(8) == 0)
		facts.TCB.SNP -= uint8(random.IntN(8) / 7)
		facts.TDXTCB.EvaluationNumber -= uint32(random.IntN(8) / 4)
		now := policytest.Now()
		if random.IntN(8) == 0 {
			now = at(t, nextYear)
		}
		explained := false
		for _, g := range []policy.GuestFacts{policytest.Guest(), policytest.TDXGuest()} {
			explained = explained || f.Manifest.AcceptSubstrate(policy.RoleNode, *facts, g, now).Allowed
		}
		if got := f.Manifest.AcceptPeer(p, now).Allowed; got != explained {
			t.Fatalf("AcceptPeer says %v, the rules say %v: %+v", got, explained, *facts)
		}
		if explained {
			accepted++
		}
	}
	if accepted < 500 {
		t.Errorf("only %d of the random machines were acceptable", accepted)
	}
}

func TestAcceptingATrustDomainAllocatesNothing(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = append(m.Substrates, policytest.TDXSubstrate()) }))
	p := policytest.Peer(f.Signed, policytest.Web)
	p.SubstrateFacts = policytest.TDXFacts()
	if n := testing.AllocsPerRun(100, func() {
		if !f.Manifest.AcceptPeer(p, policytest.Now()).Allowed {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("AcceptPeer allocates %v times", n)
	}
}

func TestAppraisalPoliciesRefuseUntilParsed(t *testing.T) {
	var none *policy.AppraisalPolicy
	for name, p := range map[string]*policy.AppraisalPolicy{
		"nil": none, "zero": {}, "by hand": {Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{policytest.Substrate()}},
	} {
		if d := p.AcceptSubstrate(policy.RoleNode, policytest.Facts(), policytest.Guest(), policytest.Now()); d.Allowed || d.Code != policy.CodeUndecided {
			t.Errorf("%s: %+v", name, d.Decision)
		}
	}
	if _, err := policy.EncodeAppraisalPolicy(nil); err == nil {
		t.Error("no policy was written")
	}
	for name, text := range map[string]string{
		"nothing": "", "a list": "[]", "empty": "{}", "a manifest": string(policytest.New(t).Payload),
		"another schema": strings.Replace(string(appraisal(t, policytest.Substrate(), func(map[string]any) {})), policy.AppraisalSchema, "x", 1),
	} {
		if _, err := policy.ParseAppraisalPolicy([]byte(text)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func FuzzParseAppraisalPolicy(f *testing.F) {
	f.Add(appraisal(f, policytest.Substrate(), func(map[string]any) {}))
	f.Add(appraisal(f, policytest.TDXSubstrate(), func(map[string]any) {}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.ParseAppraisalPolicy(b)
		if err != nil {
			return
		}
		text, err := policy.EncodeAppraisalPolicy(p)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := policy.ParseAppraisalPolicy(text); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		p.AcceptSubstrate(policy.RoleNode, policytest.Facts(), policytest.Guest(), policytest.Now())
		p.AcceptSubstrate(policy.RoleNode, policytest.TDXFacts(), policytest.TDXGuest(), policytest.Now())
	})
}
