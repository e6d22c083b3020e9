// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// candidate is one match of one rule under one path of one host.
type candidate struct {
	match  Match
	path   string
	prefix bool
	grpc   string // the method that a call must have, where only that is asked for
	isGRPC bool
	rule   *Rule
	source string

	since time.Time
	order [2]int // of the rule in the route, of the match in the rule
}

func (t *Table) addRoute(r *Route) {
	for i := range r.Rules {
		rule := &r.Rules[i]
		rule.weights = total(rule.Backends)
		matches := rule.Matches
		if len(matches) == 0 {
			matches = []Match{{}}
		}
		for j := range matches {
			c := newCandidate(matches[j])
			c.rule, c.source, c.since, c.order = rule, r.Source, r.Since, [2]int{i, j}
			for _, name := range r.Hosts {
				t.host(name).add(c)
			}
		}
	}
}

// newCandidate brings gRPC's services and methods into the order of paths:
// they are elements of the path "/service/method".
func newCandidate(m Match) *candidate {
	c := &candidate{match: m, prefix: true}
	m.Headers = slices.Clone(m.Headers)
	for i := range m.Headers {
		m.Headers[i].Name = http.CanonicalHeaderKey(m.Headers[i].Name)
	}
	c.match.Headers = m.Headers
	switch g := m.GRPC; {
	case g != nil:
		c.isGRPC = true
		switch {
		case g.Service != "" && g.Method != "":
			c.path, c.prefix = "/"+g.Service+"/"+g.Method, false
		case g.Service != "":
			c.path = "/" + g.Service
		default:
			c.grpc = g.Method
		}
	case m.Path != nil && m.Path.Kind == Exact:
		c.path, c.prefix = m.Path.Value, false
	case m.Path != nil:
		c.path = strings.TrimRight(m.Path.Value, "/")
	}
	return c
}

func (h *host) add(c *candidate) {
	if c.prefix {
		h.prefix[c.path] = append(h.prefix[c.path], c)
	} else {
		h.exact[c.path] = append(h.exact[c.path], c)
	}
}

func (h *host) sort() {
	for _, m := range []map[string][]*candidate{h.exact, h.prefix} {
		for _, list := range m {
			slices.SortStableFunc(list, before)
		}
	}
}

// before is the precedence of the Gateway API among matches of one path: a
// method, then the number of headers, then of query parameters, then the older
// route, its name, and the order within the route.
func before(a, b *candidate) int {
	return cmp.Or(
		cmp.Compare(b.methodical(), a.methodical()),
		cmp.Compare(len(b.match.Headers), len(a.match.Headers)),
		cmp.Compare(len(b.match.Query), len(a.match.Query)),
		a.since.Compare(b.since),
		cmp.Compare(a.source, b.source),
		slices.Compare(a.order[:], b.order[:]),
	)
}

func (c *candidate) methodical() int {
	if c.match.Method != "" || c.grpc != "" {
		return 1
	}
	return 0
}

func first(list []*candidate, q *question) *candidate {
	for _, c := range list {
		if c.fits(q) {
			return c
		}
	}
	return nil
}

// fits: the path already does.
func (c *candidate) fits(q *question) bool {
	if c.match.Method != "" && c.match.Method != q.Method || c.isGRPC && !isGRPC(q.Request) {
		return false
	}
	if c.grpc != "" && c.grpc != q.Path[strings.LastIndexByte(q.Path, '/')+1:] {
		return false
	}
	for i := range c.match.Headers {
		want := &c.match.Headers[i]
		if got := q.Header[want.Name]; len(got) == 0 || !sameValue(got, want.Value) {
			return false
		}
	}
	for i := range c.match.Query {
		want := &c.match.Query[i]
		if got, ok := q.param(want.Name); !ok || got != want.Value {
			return false
		}
	}
	return true
}

// sameValue compares a header that came in several lines as one list, as RFC
// 9110 section 5.3 has it.
func sameValue(lines []string, want string) bool {
	if len(lines) == 1 {
		return lines[0] == want
	}
	return strings.Join(lines, ", ") == want
}

func isGRPC(r *Request) bool {
	if r.Method != http.MethodPost || strings.Count(r.Path, "/") != 2 {
		return false
	}
	return IsGRPC(r.Header)
}

// IsGRPC reports whether a request with these headers is a call of gRPC.
func IsGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

func (c *candidate) found(h *host) Found {
	return Found{Rule: c.rule, Source: c.source, Host: h.name, Pattern: c.path, Prefix: c.prefix}
}

func (t *Table) addTCP(r *TCP) {
	r.weights = total(r.Backends)
	h := t.host(r.Host)
	if have := h.tcp[r.Port]; have == nil || cmp.Or(r.Since.Compare(have.Since), cmp.Compare(r.Source, have.Source)) < 0 {
		h.tcp[r.Port] = r
	}
}

func total(backends []Backend) (sum uint64) {
	for i := range backends {
		sum += uint64(backends[i].Weight)
	}
	return sum
}

// Pick chooses a backend by weight with a random number; nil: none has any.
func (r *Rule) Pick(random uint64) *Backend { return pick(r.Backends, r.weights, random) }

// Pick chooses a backend by weight with a random number; nil: none has any.
func (r *TCP) Pick(random uint64) *Backend { return pick(r.Backends, r.weights, random) }

func pick(backends []Backend, weights, random uint64) *Backend {
	if weights == 0 {
		return nil
	}
	at := random % weights // the bias is below 2^-31
	for i := range backends {
		w := uint64(backends[i].Weight)
		if at < w {
			return &backends[i]
		}
		at -= w
	}
	return nil
}
