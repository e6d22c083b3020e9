// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// stampLayout is RFC 3339 in UTC and whole seconds: one spelling per moment.
const stampLayout = "2006-01-02T15:04:05Z"

func parseStamp(text string) (time.Time, bool) {
	t, err := time.Parse(stampLayout, text)
	return t, err == nil && t.Format(stampLayout) == text
}

func stamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(stampLayout) }

func checkStamp(text, path string, r *report) {
	if _, ok := parseStamp(text); !ok {
		r.add(CodeTimeInvalid, path, "a time of RFC 3339 in UTC and whole seconds", quote(text), `write it like "2026-01-31T12:00:00Z"`)
	}
}

// NotBeforeTime returns when the manifest comes into force; false says at
// once. Who publishes and follows manifests holds it back until then: m itself
// answers at any time.
func (m *Manifest) NotBeforeTime() (time.Time, bool) {
	if m == nil {
		return time.Time{}, false
	}
	return parseStamp(m.NotBefore)
}

// NextChange returns the first moment after the given one at which some answer
// of this manifest changes, because a reference value expires; false says
// never. What was accepted before then must be asked about again.
func (m *Manifest) NextChange(after time.Time) (time.Time, bool) {
	if m == nil || m.index == nil {
		return time.Time{}, false
	}
	i, _ := slices.BinarySearchFunc(m.index.changes, after, func(change int64, after time.Time) int {
		if time.Unix(change, 0).After(after) {
			return 1
		}
		return -1
	})
	if i == len(m.index.changes) {
		return time.Time{}, false
	}
	return time.Unix(m.index.changes[i], 0).UTC(), true
}

// changesOf returns the moments at which values expire, in order.
func changesOf(substrates []Substrate) []int64 {
	var changes []int64
	for i := range substrates {
		changes = slices.AppendSeq(changes, maps.Values(newExpiry(substrates[i].Expires)))
	}
	slices.Sort(changes)
	return slices.Compact(changes)
}

// references yields every list of accepted values, by the path of its field.
// Words like "any" may be among the values.
func (s *Substrate) references() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		roots := make([]string, len(s.Roots))
		for i, d := range s.Roots {
			roots[i] = string(d)
		}
		type list struct {
			field  string
			values []string
		}
		lists := []list{{"roots", roots}, {"machines", s.Machines}, {"measurements", s.Measurements}, {"hostData", s.HostData}}
		for _, name := range slices.Sorted(maps.Keys(s.Registers)) {
			lists = append(lists, list{"registers." + name, s.Registers[name]})
		}
		if s.SNP != nil {
			lists = append(lists, list{"snp.idKeys", s.SNP.IDKeys}, list{"snp.authorKeys", s.SNP.AuthorKeys})
		}
		if s.TDX != nil {
			lists = append(lists,
				list{"tdx.statuses", s.TDX.Statuses}, list{"tdx.advisories", s.TDX.Advisories}, list{"tdx.owners", s.TDX.Owners},
				list{"tdx.ownerConfigs", s.TDX.OwnerConfigs}, list{"tdx.serviceTDs", s.TDX.ServiceTDs}, list{"tdx.xfams", s.TDX.XFAMs}, list{"tdx.events", s.TDX.Events})
		}
		for _, l := range lists {
			if !yield(l.field, l.values) {
				return
			}
		}
	}
}

// isWord tells the words of lists from the values.
func isWord(v string) bool { return v == Any || v == None || v == Log }

// expires: a time for a value that no list has would be a slip in one of the
// two places, and the value would go on to count.
func (v *substrateValidator) expires() {
	listed := map[string]bool{}
	for _, values := range v.s.references() {
		for _, value := range values {
			listed[value] = !isWord(value)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(v.s.Expires)) {
		path := memberPath(v.at("expires"), value)
		if !listed[value] {
			v.r.add(CodeReferenceUnknown, path, "a value that a list of this substrate has", quote(value), "list the value, or remove its time")
		}
		checkStamp(v.s.Expires[value], path, v.r)
	}
}

func readExpires(f *fields) map[string]string {
	if !f.has("expires") {
		return nil
	}
	expires := map[string]string{}
	if o := f.object("expires"); o.node != nil {
		for i, value := range o.node.keys {
			expires[value] = text(o.node.values[i], memberPath(o.path, value), o.report)
		}
	}
	return expires
}

// expire turns a refused rule into that of a value that was listed until then.
func (r *RuleResult) expire(since int64) {
	r.Code, r.Remedy = CodeReferenceExpired, "move to a value that still counts, or sign a manifest that gives this one a later time"
	r.Actual = fmt.Sprintf("%s, which counted until %s", r.Actual, stamp(since))
}

func timeless() Decision {
	return Decision{Code: CodeUndecided, Expected: "the time of the question", Actual: "none", Remedy: "pass the current time"}
}
