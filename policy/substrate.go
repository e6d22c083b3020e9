// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RuleResult is the outcome of one rule of a substrate.
type RuleResult struct {
	ID            string // "root", "measurement", "tcb-floor", …: the code of its refusal
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
// of one substrate must accept them. Two substrates never add up.
func (m *Manifest) AcceptSubstrate(role Role, facts SubstrateFacts, guest GuestFacts) SubstrateMatch {
	if m == nil || m.index == nil {
		return SubstrateMatch{Decision: undecided()}
	}
	return m.index.roles.accept(role, facts, guest)
}

// roles are the substrates that may carry each role.
type roles map[Role][]*substrateIndex

type substrateIndex struct {
	*Substrate
	path         string
	roots        map[Digest]struct{}
	measurements map[string]struct{}
	hostData     valuesOrAny
	machines     valuesOrAny
	registers    map[string]valuesOrAny
	statuses     map[string]struct{}
	advisories   valuesOrAny
}

func indexRoles(substrates []Substrate) roles {
	x := roles{}
	for i := range substrates {
		s := &substrates[i]
		sx := &substrateIndex{
			Substrate: s, path: fmt.Sprintf("substrates[%s]", s.Name), roots: set(s.Roots), measurements: set(s.Measurements),
			hostData: newValuesOrAny(s.HostData), machines: newValuesOrAny(s.Machines), registers: map[string]valuesOrAny{},
		}
		for name, values := range s.Registers {
			sx.registers[name] = newValuesOrAny(values)
			if isLog(values) { // judged by its events, at enrolment
				sx.registers[name] = valuesOrAny{any: true}
			}
		}
		if s.TDX != nil {
			sx.statuses, sx.advisories = set(s.TDX.Statuses), newValuesOrAny(s.TDX.Advisories)
		}
		for _, role := range s.Roles {
			x[role] = append(x[role], sx)
		}
	}
	return x
}

func (x roles) accept(role Role, facts SubstrateFacts, guest GuestFacts) SubstrateMatch {
	var nearest SubstrateMatch
	fewest := -1
	for _, s := range x[role] {
		match := SubstrateMatch{Substrate: s.Substrate, Rules: append(s.explain(&facts), s.explainGuest(guest)...)}
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
func (s *substrateIndex) accepts(f *SubstrateFacts) bool {
	if s.TEE != f.TEE || !s.acceptsProduct(f.Product) || s.Paravisor != f.Paravisor || s.Simulated != f.Simulated {
		return false
	}
	if _, ok := s.roots[f.Root]; !ok {
		return false
	}
	if _, ok := s.measurements[f.Measurement]; !ok {
		return false
	}
	return s.hostData.has(f.HostData) && s.acceptsRegisters(f.Registers) && s.machines.has(f.Machine) &&
		s.acceptsTCB(f) && (f.Collateral || s.Collateral.Use != CollateralRequired)
}

func (s *substrateIndex) acceptsProduct(product string) bool {
	return s.Product == product || s.Product == Any && s.TEE == TEETDX
}

func (s *substrateIndex) acceptsTCB(f *SubstrateFacts) bool {
	if s.SNP != nil {
		return f.TCB.AtLeast(*s.SNP.MinTCB)
	}
	return s.judgesTDX(f) && s.acceptsStatus(f) && f.TDXTCB.EvaluationNumber >= s.TDX.MinEvaluationNumber && s.acceptsAdvisories(f) ||
		!s.judgesTDX(f) && s.TDX != nil
}

// judgesTDX: what Intel says is judged wherever it is known.
func (s *substrateIndex) judgesTDX(f *SubstrateFacts) bool {
	return s.TDX != nil && (s.Collateral.Use != CollateralUnchecked || f.Collateral)
}

func (s *substrateIndex) acceptsStatus(f *SubstrateFacts) bool {
	_, ok := s.statuses[f.TDXTCB.Status]
	return ok
}

func (s *substrateIndex) acceptsAdvisories(f *SubstrateFacts) bool {
	for _, id := range f.TDXTCB.Advisories {
		if !s.advisories.has(id) {
			return false
		}
	}
	return true
}

// acceptsRegisters: every register that is named is there with an accepted
// value, and no other is: a set that was not agreed on is not understood.
func (s *substrateIndex) acceptsRegisters(got []Register) bool {
	if len(got) != len(s.registers) {
		return false
	}
	for i := range got {
		accepted, ok := s.registers[got[i].Name]
		if !ok || !accepted.has(got[i].Value) || i > 0 && got[i].Name == got[i-1].Name {
			return false
		}
	}
	return true
}

// describeRegisters names the first register that is not accepted.
func (s *substrateIndex) describeRegisters(got []Register) (expected, actual string) {
	values := make(map[string]string, len(got))
	for _, r := range got {
		values[r.Name] = r.Value
	}
	for _, name := range slices.Sorted(maps.Keys(s.registers)) {
		v, ok := values[name]
		if !ok {
			return name, "no such register in the evidence"
		}
		if !s.registers[name].has(v) {
			return name + " " + oneOf(s.Registers[name]), name + " " + shorten(v)
		}
		delete(values, name)
	}
	names := strings.Join(slices.Sorted(maps.Keys(s.registers)), " ")
	if names == "" {
		names = "no registers"
	}
	if len(values) > 0 {
		return names, "also " + shorten(strings.Join(slices.Sorted(maps.Keys(values)), " "))
	}
	return names, names
}

func isLog(values []string) bool { return len(values) == 1 && values[0] == Log }

// valuesOrAny accepts nothing until it is told what, or told "any".
type valuesOrAny struct {
	any    bool
	values map[string]struct{}
}

func newValuesOrAny(list []string) valuesOrAny {
	if len(list) == 1 && list[0] == Any {
		return valuesOrAny{any: true}
	}
	return valuesOrAny{values: set(list)}
}

func (v valuesOrAny) has(s string) bool {
	if v.any {
		return true
	}
	_, ok := v.values[s]
	return ok
}
