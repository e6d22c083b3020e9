// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

func (l *linter) substrate(s *Substrate) {
	path := substratePath(s)
	if s.Simulated {
		l.add(LintSimulated, path+".simulated", SeverityWarning, "anybody can make simulated evidence", "use it for development only")
	}
	l.anyValues(s, path)
	if s.Collateral.Use == CollateralUnchecked {
		severity := SeverityError
		if s.Simulated {
			severity = SeverityInfo // there is no vendor to ask
		}
		l.add(LintUnchecked, path+".collateral.use", severity, "revoked and outdated machines are accepted", fmt.Sprintf("write %q", CollateralRequired))
	}
	l.guest(s, path)
	l.floors(s, path)
	l.expiries(s, path)
}

func substratePath(s *Substrate) string { return fmt.Sprintf("substrates[%s]", s.Name) }

func (l *linter) anyValues(s *Substrate, path string) {
	if isAny(s.Machines) {
		l.add(LintAnyMachine, path+".machines", SeverityWarning, "every machine of this kind is accepted, whoever stands beside it", "list the machines that are yours")
	}
	if isAny(s.HostData) {
		l.add(LintAnyHostData, path+".hostData", SeverityWarning, "guests are accepted that were launched for other operators, or for nobody", "list your operators' digest")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
		if isAny(s.Registers[name]) {
			l.add(LintAnyRegister, path+".registers."+name, SeverityWarning, "what this register measures is not checked", "list the values of your images")
		}
	}
	if s.TDX != nil && isAny(s.TDX.Advisories) {
		l.add(LintAnyAdvisory, path+".tdx.advisories", SeverityWarning, "every vulnerability that Intel knows of may be open", "list the advisories you accept")
	}
}

func (l *linter) guest(s *Substrate, path string) {
	rules, debug, migration := ".snp", false, false
	switch {
	case s.SNP != nil:
		debug, migration = s.SNP.Guest.AllowDebug, s.SNP.Guest.AllowMigration
	case s.TDX != nil:
		rules, debug, migration = ".tdx", s.TDX.Guest.AllowDebug, s.TDX.Guest.AllowMigration
	}
	if debug {
		l.add(LintDebug, path+rules+".guest.allowDebug", SeverityError, "the host may read the guest's memory: nothing in it is confidential", "forbid it")
	}
	if migration {
		l.add(LintMigration, path+rules+".guest.allowMigration", SeverityWarning, "the guest may be moved by an agent that this manifest does not judge", "forbid it")
	}
}

// floors looks for floors that keep nothing out. The TEE part is zero on many
// good machines, and FMC on all before Turin.
func (l *linter) floors(s *Substrate, path string) {
	missing := func(field string) {
		l.add(LintFloorMissing, path+field, SeverityWarning, "firmware of any age is accepted", "take the versions from the vendor's latest security bulletin")
	}
	if s.SNP != nil {
		for _, floor := range []struct {
			field string
			tcb   *TCB
		}{{".snp.minTCB", s.SNP.MinTCB}, {".snp.minLaunchTCB", s.SNP.MinLaunchTCB}} {
			if t := floor.tcb; t.BootLoader == 0 || t.SNP == 0 || t.Microcode == 0 {
				missing(floor.field)
			}
		}
	}
	if s.TDX != nil && s.TDX.MinEvaluationNumber == 0 {
		missing(".tdx.minEvaluationNumber")
	}
}

// expiries tells values that have expired or will soon from lists of which
// nothing will be left: machines then stop, which is seldom meant.
func (l *linter) expiries(s *Substrate, path string) {
	e := newExpiry(s.Expires)
	for _, v := range slices.Sorted(maps.Keys(s.Expires)) {
		at := path + ".expires[" + v + "]"
		switch until := time.Unix(e[v], 0); {
		case !until.After(l.now):
			l.add(LintExpired, at, SeverityWarning, "it has not counted since "+s.Expires[v], "remove the value and its time")
		case !until.After(l.now.Add(lintSoon)):
			l.add(LintExpiring, at, SeverityWarning, "it stops to count at "+s.Expires[v], "have everything moved to another value by then")
		}
	}
	for field, values := range s.references() {
		last := int64(0)
		for _, v := range values {
			until, ok := e[v]
			if !ok {
				last = never
				break
			}
			last = max(last, until)
		}
		if len(values) == 0 || last == never {
			continue
		}
		severity := SeverityWarning
		if !time.Unix(last, 0).After(l.now.Add(lintSoon)) {
			severity = SeverityError
		}
		l.add(LintNothingLeft, path+"."+field, severity, "every value expires: from "+stamp(last)+" on none is accepted", "list one that stays, or remove the last one's time")
	}
}

// unions finds another substrate that accepts the same machine with the same
// measurement and asks for less: the weakest of all decides.
func (l *linter) unions(i int) {
	s := &l.m.Substrates[i]
	for j := range l.m.Substrates {
		o := &l.m.Substrates[j]
		if i == j || !overlap(s, o) {
			continue
		}
		for _, field := range weakerFloors(s, o) {
			l.add(LintFloorBypassed, substratePath(s)+field, SeverityWarning,
				fmt.Sprintf("%s accepts the same measurement on a lower floor: a machine needs to meet only that", substratePath(o)), "raise the floor there, or give the two different measurements or machines")
		}
	}
}

// overlap reports whether some evidence could satisfy both, but for the floors.
func overlap(a, b *Substrate) bool {
	product := a.Product == b.Product || a.Product == Any || b.Product == Any
	return a.TEE == b.TEE && product && a.Paravisor == b.Paravisor && a.Simulated == b.Simulated &&
		common(a.Roles, b.Roles) && common(a.Roots, b.Roots) && common(a.Measurements, b.Measurements) &&
		commonOrAny(a.Machines, b.Machines) && commonOrAny(a.HostData, b.HostData) && commonRegisters(a.Registers, b.Registers)
}

// weakerFloors lists the floors of s that o undercuts.
func weakerFloors(s, o *Substrate) []string {
	d := &differ{}
	switch {
	case s.SNP != nil && o.SNP != nil:
		d.tcb(".snp.minTCB", s.SNP.MinTCB, o.SNP.MinTCB)
		d.tcb(".snp.minLaunchTCB", s.SNP.MinLaunchTCB, o.SNP.MinLaunchTCB)
		d.floor(".snp.minGuestSVN", int(s.SNP.MinGuestSVN), int(o.SNP.MinGuestSVN))
	case s.TDX != nil && o.TDX != nil:
		values(d, ".tdx.statuses", s.TDX.Statuses, o.TDX.Statuses)
		d.valuesOrAny(".tdx.advisories", s.TDX.Advisories, o.TDX.Advisories)
		d.floor(".tdx.minEvaluationNumber", int(s.TDX.MinEvaluationNumber), int(o.TDX.MinEvaluationNumber))
	}
	d.flag(".collateral.use", s.Collateral.Use == CollateralUnchecked, o.Collateral.Use == CollateralUnchecked, s.Collateral.Use, o.Collateral.Use)
	var weaker []string
	for _, c := range d.changes {
		if c.Effect == Widens {
			weaker = append(weaker, c.Path)
		}
	}
	return weaker
}

// sharedMeasurements: an image that may be the CDS and something else lets
// whoever runs the other run a CDS, which is what every name in the mesh rests on.
func (l *linter) sharedMeasurements() {
	others := map[string]string{}
	for i := range l.m.Substrates {
		s := &l.m.Substrates[i]
		for _, role := range []Role{RoleIngress, RoleNode} {
			if slices.Contains(s.Roles, role) {
				for _, v := range s.Measurements {
					others[v] = fmt.Sprintf("every %s (of %s)", role, s.Name)
				}
			}
		}
	}
	for i := range l.m.Substrates {
		s := &l.m.Substrates[i]
		if !slices.Contains(s.Roles, RoleCDS) {
			continue
		}
		for _, v := range s.Measurements {
			if other, ok := others[v]; ok {
				l.add(LintSharedMeasurement, substratePath(s)+".measurements["+v+"]", SeverityWarning,
					other+" may run the CDS's image, and become a CDS", "build the CDS's image apart")
			}
		}
	}
}

func common[T comparable](a, b []T) bool {
	in := set(b)
	return slices.ContainsFunc(a, func(v T) bool { _, ok := in[v]; return ok })
}

func commonRegisters(a, b map[string][]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, values := range a {
		others, ok := b[name]
		if !ok || !isLog(values) && !isLog(others) && !commonOrAny(values, others) {
			return false
		}
	}
	return true
}

func commonOrAny(a, b []string) bool { return isAny(a) || isAny(b) || common(a, b) }
