// SPDX-License-Identifier: Apache-2.0

package policy

import "math"

// accepted is a list of reference values, each with the moment from which it
// no longer counts. It accepts nothing until it is told what, or told "any".
type accepted struct {
	any    bool
	list   []string         // as written
	until  map[string]int64 // Unix seconds, or never
	expire bool             // some value of the list does
}

const never = math.MaxInt64

// expiry holds the moments of a substrate's values that have one.
type expiry map[string]int64

func newExpiry(expires map[string]string) expiry {
	e := make(expiry, len(expires))
	for value, text := range expires {
		e[value] = math.MinInt64 // cannot be: Parse has read it
		if t, ok := parseStamp(text); ok {
			e[value] = t.Unix()
		}
	}
	return e
}

func valuesOf[T ~string](list []T, e expiry) accepted {
	a := accepted{list: make([]string, len(list)), until: make(map[string]int64, len(list))}
	for i, v := range list {
		a.list[i], a.until[string(v)] = string(v), never
		if t, ok := e[string(v)]; ok {
			a.until[string(v)], a.expire = t, true
		}
	}
	return a
}

func valuesOrAny(list []string, e expiry) accepted {
	if isAny(list) {
		return accepted{any: true, list: list}
	}
	return valuesOf(list, e)
}

func isAny(list []string) bool { return len(list) == 1 && list[0] == Any }

func (a *accepted) has(v string, now int64) bool {
	return a.any || now < a.expiry(v)
}

// expiry returns when v stops to count: long ago for what is not listed.
func (a *accepted) expiry(v string) int64 {
	if until, ok := a.until[v]; ok {
		return until
	}
	return math.MinInt64
}

// expired returns since when a listed value has not counted.
func (a *accepted) expired(v string, now int64) (since int64, ok bool) {
	since, listed := a.until[v]
	return since, listed && since <= now
}

// describe names the values that count.
func (a *accepted) describe(now int64) string {
	if !a.expire {
		return oneOf(a.list)
	}
	var live []string
	for _, v := range a.list {
		if a.has(v, now) {
			live = append(live, v)
		}
	}
	if len(live) == 0 {
		return "nothing: every listed value has expired"
	}
	return oneOf(live)
}
