// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

const maxDNSName = 253 // RFC 1035 section 2.3.4, without the final dot

// NameAllowed decides whether pods of the entry may resolve an external name:
// it stands under dns, or in an external rule. name is in lower case and has no
// final dot; another spelling is another name. Allowing allocates nothing.
func (m *Manifest) NameAllowed(workload, name string) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	w, ok := m.index.workloads[workload]
	if !ok {
		return unlisted(workload)
	}
	if w.dns.has(name) {
		return w.resolves
	}
	for i := range w.externals {
		if x := &w.externals[i]; x.names.has(name) {
			return x.allowed
		}
	}
	d := Decision{
		Code: CodeNameNotAllowed, Rule: w.path + ".dns", Expected: "no external name", Actual: shorten(name),
		Remedy: "add the name to dns, or to an external rule, if pods of the entry should resolve it",
	}
	names := w.entry.DNS
	for i := range w.entry.External {
		names = append(names[:len(names):len(names)], w.entry.External[i].Names...)
	}
	if len(names) > 0 {
		d.Expected = oneOf(names)
	}
	return d
}

// NameListed reports whether the entry lists the name itself, not only a
// wildcard that it is below.
func (m *Manifest) NameListed(workload, name string) bool {
	if m == nil || m.index == nil || strings.HasPrefix(name, ".") {
		return false
	}
	w, ok := m.index.workloads[workload]
	if !ok {
		return false
	}
	if _, listed := w.dns[name]; listed {
		return true
	}
	return slices.ContainsFunc(w.externals, func(x externalIndex) bool { _, listed := x.names[name]; return listed })
}

// nameSet holds names, and suffixes with their leading dot for wildcards.
type nameSet map[string]struct{}

func newNameSet(names []string) nameSet {
	s := make(nameSet, len(names))
	for _, n := range names {
		s[strings.TrimPrefix(n, "*")] = struct{}{}
	}
	return s
}

// has reports whether name is in the set, or below one of its wildcards:
// "*.example.com" has "a.example.com" and "a.b.example.com", not "example.com".
func (s nameSet) has(name string) bool {
	if len(s) == 0 || name == "" || name[0] == '.' {
		return false
	}
	if _, ok := s[name]; ok {
		return true
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if _, ok := s[name[i:]]; ok {
			return true
		}
	}
	return false
}

// isDNSName accepts "api.example.com" and "*.example.com": lower case, two
// labels at least, no final dot, and nothing that reads as an address. Labels
// may begin with '_', as those of SRV records do (RFC 2782).
func isDNSName(s string) bool {
	if len(s) > maxDNSName {
		return false
	}
	labels := strings.Split(s, ".")
	if len(labels) < 2 {
		return false
	}
	if labels[0] == "*" {
		labels = labels[1:]
	}
	for _, l := range labels {
		if !isLabel(strings.TrimPrefix(l, "_")) || len(l) > maxLabel {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
