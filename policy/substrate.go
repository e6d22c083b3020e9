// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// RuleResult is the outcome of one rule of a substrate.
type RuleResult struct {
	ID            string // "root", "measurement", "tcb-floor", …: the code of its refusal, unless what it found has expired
	NotApplicable bool   // allowed, because the substrate says in a word that it does not ask
	Decision
}

// SubstrateMatch says whether some substrate accepts the facts, and every
// rule's outcome for that substrate or, on refusal, for the nearest one.
type SubstrateMatch struct {
	Decision             // on refusal: the first failed rule of Substrate
	Substrate *Substrate // nil when there is none for the role
	Rules     []RuleResult
}

// AcceptSubstrate appraises the facts of fresh evidence for a role: all rules
// of one substrate must accept them now. Two substrates never add up.
func (m *Manifest) AcceptSubstrate(role Role, facts SubstrateFacts, guest GuestFacts, now time.Time) SubstrateMatch {
	if m == nil || m.index == nil {
		return SubstrateMatch{Decision: undecided()}
	}
	return m.index.roles.accept(role, facts, guest, now)
}

// roles are the substrates that may carry each role.
type roles map[Role][]*substrateIndex

type substrateIndex struct {
	*Substrate
	path         string
	roots        accepted
	measurements accepted
	hostData     accepted
	machines     accepted
	registers    map[string]*accepted
	logged       []string // registers that are judged by their events
	snp          snpIndex
	tdx          tdxIndex
}

type snpIndex struct{ idKeys, authorKeys accepted }

type tdxIndex struct {
	statuses, advisories, owners, ownerConfigs, serviceTDs, xfams, events accepted
}

func indexRoles(substrates []Substrate) roles {
	x := roles{}
	for i := range substrates {
		sx := newSubstrateIndex(&substrates[i])
		for _, role := range sx.Roles {
			x[role] = append(x[role], sx)
		}
	}
	return x
}

func newSubstrateIndex(s *Substrate) *substrateIndex {
	e := newExpiry(s.Expires)
	sx := &substrateIndex{
		Substrate: s, path: fmt.Sprintf("substrates[%s]", s.Name), roots: valuesOf(s.Roots, e), measurements: valuesOf(s.Measurements, e),
		hostData: valuesOrAny(s.HostData, e), machines: valuesOrAny(s.Machines, e), registers: map[string]*accepted{},
	}
	for name, values := range s.Registers {
		a := valuesOrAny(values, e)
		if isLog(values) { // judged by its events, at enrolment
			a, sx.logged = accepted{any: true, list: values}, append(sx.logged, name)
		}
		sx.registers[name] = &a
	}
	if s.SNP != nil {
		sx.snp = snpIndex{idKeys: valuesOrAny(s.SNP.IDKeys, e), authorKeys: valuesOrAny(s.SNP.AuthorKeys, e)}
	}
	if t := s.TDX; t != nil {
		sx.tdx = tdxIndex{
			statuses: valuesOf(t.Statuses, e), advisories: valuesOrAny(t.Advisories, e), owners: valuesOrAny(t.Owners, e),
			ownerConfigs: valuesOrAny(t.OwnerConfigs, e), serviceTDs: valuesOrAny(t.ServiceTDs, e), xfams: valuesOrAny(t.XFAMs, e),
			events: valuesOf(t.Events, e),
		}
	}
	return sx
}

// carriers are the substrates a workload's certificate may speak of: the
// node's that runs the pod, or the pod's own.
func (x roles) carriers() []*substrateIndex {
	carriers := slices.Clone(x[RoleNode])
	for _, s := range x[RoleWorkload] {
		if !slices.Contains(carriers, s) {
			carriers = append(carriers, s)
		}
	}
	return carriers
}

func (x roles) accept(role Role, facts SubstrateFacts, guest GuestFacts, at time.Time) SubstrateMatch {
	if at.IsZero() {
		return SubstrateMatch{Decision: timeless()}
	}
	now := at.Unix()
	var nearest SubstrateMatch
	fewest := -1
	for _, s := range x[role] {
		match := SubstrateMatch{Substrate: s.Substrate, Rules: append(s.explain(&facts, now), s.explainGuest(guest, now)...)}
		failed := match.conclude(s.path)
		if failed == 0 {
			return match
		}
		if s.TEE != facts.TEE || s.Simulated != facts.Simulated {
			failed += len(match.Rules) // of another kind, hardly the one that was meant
		}
		if fewest < 0 || failed < fewest {
			nearest, fewest = match, failed
		}
	}
	if fewest < 0 {
		return SubstrateMatch{Decision: noSubstrate(role)}
	}
	return nearest
}

// conclude sets the decision from the rules and counts the failed ones.
func (s *SubstrateMatch) conclude(path string) int {
	failed := 0
	for _, r := range s.Rules {
		if r.Allowed {
			continue
		}
		if failed == 0 {
			s.Decision = r.Decision
		}
		failed++
	}
	if failed == 0 {
		s.Decision = allow(path)
	}
	return failed
}

func undecided() Decision {
	return Decision{Code: CodeUndecided, Expected: "a manifest from policy.Open or policy.Parse", Actual: "one built by hand, or none", Remedy: "open a signed manifest first"}
}

func noSubstrate(role Role) Decision {
	return Decision{
		Code: CodeRole, Rule: "substrates", Expected: "a substrate that may carry the role", Actual: fmt.Sprintf("none for role %q", role),
		Remedy: "add the role to a substrate of the manifest",
	}
}

// accepts is the connection path's form of explain: same rules, no words.
func (s *substrateIndex) accepts(f *SubstrateFacts, now int64) bool {
	if s.TEE != f.TEE || !s.acceptsProduct(f.Product) || s.Paravisor != f.Paravisor || s.Simulated != f.Simulated {
		return false
	}
	return s.roots.has(string(f.Root), now) && s.measurements.has(f.Measurement, now) && s.hostData.has(f.HostData, now) &&
		s.acceptsRegisters(f.Registers, now) && s.machines.has(f.Machine, now) && s.acceptsTCB(f, now) &&
		(f.Collateral || s.Collateral.Use != CollateralRequired)
}

func (s *substrateIndex) acceptsProduct(product string) bool {
	return s.Product == product || s.Product == Any && s.TEE == TEETDX
}

func (s *substrateIndex) acceptsTCB(f *SubstrateFacts, now int64) bool {
	if s.SNP != nil {
		return f.TCB.AtLeast(*s.SNP.MinTCB)
	}
	return s.judgesTDX(f) && s.tdx.statuses.has(f.TDXTCB.Status, now) && f.TDXTCB.EvaluationNumber >= s.TDX.MinEvaluationNumber && s.acceptsAdvisories(f, now) ||
		!s.judgesTDX(f) && s.TDX != nil
}

// judgesTDX: what Intel says is judged wherever it is known.
func (s *substrateIndex) judgesTDX(f *SubstrateFacts) bool {
	return s.TDX != nil && (s.Collateral.Use != CollateralUnchecked || f.Collateral)
}

func (s *substrateIndex) acceptsAdvisories(f *SubstrateFacts, now int64) bool {
	for _, id := range f.TDXTCB.Advisories {
		if !s.tdx.advisories.has(id, now) {
			return false
		}
	}
	return true
}

// acceptsRegisters: every register that is named is there with an accepted
// value, and no other is: a set that was not agreed on is not understood.
func (s *substrateIndex) acceptsRegisters(got []Register, now int64) bool {
	if len(got) != len(s.registers) {
		return false
	}
	for i := range got {
		a, ok := s.registers[got[i].Name]
		if !ok || !a.has(got[i].Value, now) || i > 0 && got[i].Name == got[i-1].Name {
			return false
		}
	}
	return true
}

// describeRegisters names the first register that is not accepted, and since
// when its value has not counted where it is one that expired (otherwise never).
func (s *substrateIndex) describeRegisters(got []Register, now int64) (expected, actual string, since int64) {
	values := make(map[string]string, len(got))
	for _, r := range got {
		values[r.Name] = r.Value
	}
	for _, name := range slices.Sorted(maps.Keys(s.registers)) {
		v, ok := values[name]
		if !ok {
			return name, "no such register in the evidence", never
		}
		if a := s.registers[name]; !a.has(v, now) {
			since, ok := a.expired(v, now)
			if !ok {
				since = never
			}
			return name + " " + a.describe(now), name + " " + shorten(v), since
		}
		delete(values, name)
	}
	names := strings.Join(slices.Sorted(maps.Keys(s.registers)), " ")
	if names == "" {
		names = "no registers"
	}
	if len(values) > 0 {
		return names, "also " + shorten(strings.Join(slices.Sorted(maps.Keys(values)), " ")), never
	}
	return names, names, never
}

func isLog(values []string) bool { return len(values) == 1 && values[0] == Log }
