// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"strings"
)

func (d *differ) rules(path string, a, b []PeerRule) {
	keyed(d, path, a, b, ruleKey, ruleSummary, func(path string, a, b PeerRule) { values(d, path+".ports", a.Ports, b.Ports) })
}

// namespaces: an empty list is every namespace.
func (d *differ) namespaces(path string, a, b []string) {
	switch {
	case len(a) == 0 && len(b) > 0:
		d.add(path, "every namespace", strings.Join(b, ", "), Narrows)
	case len(a) > 0 && len(b) == 0:
		d.add(path, strings.Join(a, ", "), "every namespace", Widens)
	default:
		values(d, path, a, b)
	}
}

func (d *differ) valuesOrAny(path string, a, b []string) {
	wasAny, nowAny := isAny(a), isAny(b)
	switch {
	case wasAny && nowAny:
	case nowAny:
		d.add(path, oneOf(a), Any, Widens)
	case wasAny:
		d.add(path, Any, oneOf(b), Narrows)
	default:
		values(d, path, a, b)
	}
}

// values compares two lists of accepted values: a value more widens.
func values[T cmp.Ordered](d *differ, path string, a, b []T) {
	text := func(v T) string { return fmt.Sprint(v) }
	keyed(d, path, a, b, text, text, func(string, T, T) {})
}

// keyed compares two lists whose members have a name. Members of a come
// first, in a's order, then the new ones.
func keyed[T any](d *differ, path string, a, b []T, key, show func(T) string, both func(path string, a, b T)) {
	was, is := byKey(a, key), byKey(b, key)
	for _, v := range a {
		at := fmt.Sprintf("%s[%s]", path, key(v))
		if after, ok := is[key(v)]; ok {
			both(at, v, after)
		} else {
			d.add(at, show(v), "", Narrows)
		}
	}
	for _, v := range b {
		if _, ok := was[key(v)]; !ok {
			d.add(fmt.Sprintf("%s[%s]", path, key(v)), "", show(v), Widens)
		}
	}
}

func byKey[T any](list []T, key func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, v := range list {
		m[key(v)] = v
	}
	return m
}
