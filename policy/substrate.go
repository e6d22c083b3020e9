// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// SubstrateFacts say what a piece of evidence proves about a machine. The
// spelling is the manifest's: lower-case hexadecimal.
type SubstrateFacts struct {
	TEE, Product string
	Simulated    bool
	Root         Digest // SHA-256 of the root certificate's DER
	Measurement  string // 96 hex digits
	HostData     string // 64 hex digits
	TCB          TCB
	Machine      string // chip id, 128 hex digits
}

// GuestFacts are the parts of a report that a certificate does not repeat.
type GuestFacts struct {
	Debug, Migration, SMT bool // what the guest was launched to allow
	VMPL                  uint32
}

// RuleResult is the outcome of one rule of a substrate.
type RuleResult struct {
	ID string // "root", "measurement", "tcb-floor", …: the code of its refusal
	Decision
}

// SubstrateMatch says whether some substrate accepts the facts, and every
// rule's outcome for that substrate or, on refusal, for the nearest one.
type SubstrateMatch struct {
	Decision             // on refusal: the first failed rule of Substrate
	Substrate *Substrate // nil when the manifest has none for the role
	Rules     []RuleResult
}

// AcceptSubstrate appraises the facts of fresh evidence for a role: all rules
// of one substrate must accept them. Two substrates never add up.
func (m *Manifest) AcceptSubstrate(role Role, facts SubstrateFacts, guest GuestFacts) SubstrateMatch {
	if m == nil || m.index == nil {
		return SubstrateMatch{Decision: undecided()}
	}
	var nearest SubstrateMatch
	fewest := -1
	for _, s := range m.index.roles[role] {
		match := SubstrateMatch{Substrate: s.Substrate, Rules: append(s.explain(&facts), s.explainGuest(guest)...)}
		failed := match.conclude(s.path)
		if failed == 0 {
			return match
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
	if s.TEE != f.TEE || s.Product != f.Product || s.Simulated != f.Simulated || !f.TCB.AtLeast(*s.MinTCB) {
		return false
	}
	if _, ok := s.roots[f.Root]; !ok {
		return false
	}
	if _, ok := s.measurements[f.Measurement]; !ok {
		return false
	}
	return s.hostData.has(f.HostData) && s.machines.has(f.Machine)
}

// explain gives every rule's outcome, in a fixed order: what kind of machine,
// who vouches for it, what runs on it, how current it is, which one it is.
func (s *substrateIndex) explain(f *SubstrateFacts) []RuleResult {
	_, root := s.roots[f.Root]
	_, measured := s.measurements[f.Measurement]
	simulatedRemedy := "simulated evidence proves nothing: use a real machine"
	if s.Simulated {
		simulatedRemedy = "this substrate is for development only"
	}
	return []RuleResult{
		s.rule(CodeTEE, "tee", s.TEE == f.TEE, s.TEE, f.TEE, ""),
		s.rule(CodeProduct, "product", s.Product == f.Product, s.Product, f.Product, ""),
		s.rule(CodeSimulated, "simulated", s.Simulated == f.Simulated, fmt.Sprint(s.Simulated), fmt.Sprint(f.Simulated), simulatedRemedy),
		s.rule(CodeRoot, "roots", root, oneOf(s.Roots), string(f.Root), "list the vendor root's digest if you trust it"),
		s.rule(CodeMeasurement, "measurements", measured, oneOf(s.Measurements), f.Measurement, "list the launch digest of the image that runs there, if it is yours"),
		s.rule(CodeHostData, "hostData", s.hostData.has(f.HostData), oneOf(s.HostData), f.HostData, "launch the machine with the digest of your operators as HOST_DATA"),
		s.rule(CodeTCBFloor, "minTCB", f.TCB.AtLeast(*s.MinTCB), "at least "+s.MinTCB.String(), f.TCB.String(), "update the machine's firmware"),
		s.rule(CodeMachineUnpinned, "machines", s.machines.has(f.Machine), oneOf(s.Machines), f.Machine, "list the chip id if the machine is yours"),
	}
}

func (s *substrateIndex) explainGuest(g GuestFacts) []RuleResult {
	p := s.Guest
	permit := func(code Code, field string, allowed, got bool) RuleResult {
		return s.rule(code, "guest."+field, allowed || !got, permission(allowed), permission(got), "launch the guest without it")
	}
	return []RuleResult{
		permit(CodeDebug, "allowDebug", p.AllowDebug, g.Debug),
		permit(CodeMigration, "allowMigration", p.AllowMigration, g.Migration),
		permit(CodeSMT, "allowSMT", p.AllowSMT, g.SMT),
		s.rule(CodeVMPL, "guest.vmpl", p.VMPL == g.VMPL, fmt.Sprint(p.VMPL), fmt.Sprint(g.VMPL), "request evidence from that privilege level"),
	}
}

func permission(b bool) string {
	if b {
		return "permitted"
	}
	return "not permitted"
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

func (t TCB) String() string {
	return fmt.Sprintf("bootLoader=%d tee=%d snp=%d microcode=%d", t.BootLoader, t.TEE, t.SNP, t.Microcode)
}

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
	if isPrintableUpTo(s, 2*machineLen) {
		return s
	}
	return quote(s)
}
