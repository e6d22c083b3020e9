// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Outcome says what becomes of something that works now.
type Outcome string

// The outcomes, the worst first.
const (
	Stops    Outcome = "stops"     // refused as soon as the manifest is in force
	MayStop  Outcome = "may-stop"  // some are refused: several substrates take over, and none takes over everything
	ReEnrols Outcome = "re-enrols" // refused until the pods have enrolled again, which those can that still fit
	Renewal  Outcome = "renewal"   // refused when the machine enrols the next time
	Expires  Outcome = "expires"   // refused from a later moment on
)

// Impact is one thing that works under a manifest and does not under the next.
type Impact struct {
	Path    string  `json:"path"`            // as in Change
	Roles   []Role  `json:"roles,omitempty"` // of machines: for which roles
	Outcome Outcome `json:"outcome"`
	Before  string  `json:"before,omitempty"` // as in Change
	After   string  `json:"after,omitempty"`
	Why     string  `json:"why"` // for people
}

// Affected says what publishing next in place of prev stops: machines and
// guests, workloads and connections, in prev's order. It knows what may run, not
// what does. Where it says nothing, nothing stops. No prev (nil) has nothing
// running.
func Affected(prev, next *Manifest, now time.Time) []Impact {
	switch {
	case prev == nil:
		return nil
	case prev.index == nil || next == nil || next.index == nil:
		return []Impact{{Path: "$", Outcome: Stops, Why: undecided().Actual + ": it accepts nothing"}}
	}
	var a impacts
	for i := range prev.Substrates {
		a.substrate(prev.Substrates[i], next.Substrates, now)
	}
	a.sandboxes(prev, next)
	for i := range prev.Workloads {
		a.workload(prev, next, &prev.Workloads[i])
	}
	a.ingress(prev, next)
	return a.list
}

type impacts struct{ list []Impact }

func (a *impacts) add(i Impact) { a.list = append(a.list, i) }

// substrate compares what a substrate accepts now with what those of the next
// manifest do, role by role.
func (a *impacts) substrate(was Substrate, next []Substrate, now time.Time) {
	was, accepts := was.at(now)
	if !accepts {
		return
	}
	path := fmt.Sprintf("substrates[%s]", was.Name)
	first := len(a.list)
	for _, role := range was.Roles {
		for _, impact := range lost(was, role, successors(was, role, next, now), path) {
			i := slices.IndexFunc(a.list[first:], func(o Impact) bool { return o.Path == impact.Path && o.Outcome == impact.Outcome })
			if i < 0 {
				a.add(impact)
			} else {
				a.list[first+i].Roles = append(a.list[first+i].Roles, role)
			}
		}
	}
}

// successors are the substrates that may take over for a role, with what each
// accepts less. Those of another kind of machine take over nothing.
func successors(was Substrate, role Role, next []Substrate, now time.Time) []successor {
	var found []successor
	for _, s := range next {
		s, accepts := s.at(now)
		if accepts && slices.Contains(s.Roles, role) && s.TEE == was.TEE && s.Simulated == was.Simulated {
			found = append(found, successor{name: s.Name, losses: losses(was, s)})
		}
	}
	return found
}

type successor struct {
	name   string
	losses []Change
}

func losses(was, is Substrate) []Change {
	d := &differ{}
	d.substrate("", was, is)
	return slices.DeleteFunc(d.changes, func(c Change) bool {
		anyProduct := c.Path == ".product" && is.Product == Any
		return c.Effect == Widens || anyProduct || strings.HasPrefix(c.Path, ".roles[")
	})
}

// lost follows the nearest successor: the one of the same name, or else the one
// that loses least. What another one still accepts may go on there, if all
// else fits it too.
func lost(was Substrate, role Role, next []successor, path string) []Impact {
	if len(next) == 0 {
		return []Impact{{Path: path, Roles: []Role{role}, Outcome: Stops, Before: summary(was), Why: "no substrate accepts such machines any more"}}
	}
	nearest := next[0]
	for _, s := range next {
		if len(s.losses) == 0 {
			return nil
		}
		if s.name == was.Name || nearest.name != was.Name && len(s.losses) < len(nearest.losses) {
			nearest = s
		}
	}
	var found []Impact
	for _, c := range nearest.losses {
		outcome, why := outcomeOf(c.Path)
		everywhere := !slices.ContainsFunc(next, func(s successor) bool {
			return !slices.ContainsFunc(s.losses, func(o Change) bool { return o.Path == c.Path })
		})
		if !everywhere {
			outcome, why = MayStop, "another substrate may take over, if it accepts everything else as well"
		}
		found = append(found, Impact{Path: path + c.Path, Roles: []Role{role}, Outcome: outcome, Before: c.Before, After: c.After, Why: why})
	}
	return found
}

// outcomeOf tells what certificates repeat, and is judged at every connection,
// from what only fresh evidence shows.
func outcomeOf(field string) (Outcome, string) {
	within := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(field, p) })
	}
	switch {
	case within(".expires["):
		return Expires, "certificates of such machines are refused from then on"
	case within(".snp.minTCB", ".tdx.statuses", ".tdx.advisories", ".tdx.minEvaluationNumber"):
	case within(".snp.", ".tdx.", ".collateral.maxAgeDays"):
		return Renewal, "certificates of such machines last until they end"
	}
	return Stops, "certificates of such machines are refused at the next connection"
}

// at returns what is left of the substrate at a moment, and whether it still
// accepts anything.
func (s Substrate) at(now time.Time) (Substrate, bool) {
	e, accepts := newExpiry(s.Expires), true
	live := func(list []string) []string {
		kept := slices.DeleteFunc(slices.Clone(list), func(v string) bool { return e.over(v, now.Unix()) })
		accepts = accepts && len(kept) > 0
		return kept
	}
	roots := s.Roots
	s.Roots = slices.DeleteFunc(slices.Clone(roots), func(d Digest) bool { return e.over(string(d), now.Unix()) })
	accepts = len(s.Roots) > 0
	s.Machines, s.Measurements, s.HostData = live(s.Machines), live(s.Measurements), live(s.HostData)
	registers := make(map[string][]string, len(s.Registers))
	for name, values := range s.Registers {
		registers[name] = live(values)
	}
	s.Registers = registers
	if s.SNP != nil {
		snp := *s.SNP
		snp.IDKeys, snp.AuthorKeys = live(snp.IDKeys), live(snp.AuthorKeys)
		s.SNP = &snp
	}
	if s.TDX != nil {
		tdx := *s.TDX
		tdx.Statuses, tdx.Owners, tdx.OwnerConfigs = live(tdx.Statuses), live(tdx.Owners), live(tdx.OwnerConfigs)
		tdx.ServiceTDs, tdx.XFAMs = live(tdx.ServiceTDs), live(tdx.XFAMs)
		some := accepts // without these it goes on: no advisory may be open, no event logged
		tdx.Advisories, tdx.Events = live(tdx.Advisories), live(tdx.Events)
		accepts, s.TDX = some, &tdx
	}
	expires := make(map[string]string, len(s.Expires))
	for v, until := range s.Expires {
		if !e.over(v, now.Unix()) {
			expires[v] = until
		}
	}
	s.Expires = expires
	return s, accepts
}

func (e expiry) over(v string, now int64) bool {
	until, ok := e[v]
	return ok && until <= now
}

func (a *impacts) workload(prev, next *Manifest, w *Workload) {
	path := workloadPath(w.Name)
	is, ok := next.Workload(w.Name)
	if !ok {
		a.add(Impact{Path: path, Outcome: Stops, Before: workloadSummary(*w), Why: "the entry is gone: its pods are refused"})
		return
	}
	if w.Digest() != is.Digest() {
		a.add(Impact{Path: path, Outcome: ReEnrols, Before: string(w.Digest()), After: string(is.Digest()), Why: "what may run under the entry's name, or how, changed"})
		a.pods(path, w, is)
	}
	a.host(path, w, is)
	a.outside(path, w, is)
	for i := range prev.Workloads {
		to := prev.Workloads[i].Name
		if _, ok := next.Workload(to); ok {
			a.connections(prev, next, w, to)
		}
	}
}

// connections looks at both sides' rules together: only what both allow works.
func (a *impacts) connections(prev, next *Manifest, from *Workload, to string) {
	for _, rule := range from.Peers.To {
		if rule.Workload != to {
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(rule.Ports), func(port uint16) bool {
			e := edge{from.Name, to, rule.Protocol, port}
			_, was := prev.index.edges[e]
			_, is := next.index.edges[e]
			return !was || is
		})
		if len(gone) > 0 {
			a.add(Impact{
				Path: fmt.Sprintf("%s.peers.to[%s]", workloadPath(from.Name), ruleKey(rule)), Outcome: Stops, Before: ruleSummary(PeerRule{Ports: gone, Protocol: rule.Protocol}),
				Why: "one of the two entries does not allow the connection any more",
			})
		}
	}
}
