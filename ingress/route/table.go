// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Table is what Lookup answers from. Immutable; the zero value knows no host.
type Table struct {
	exact    map[string]*host
	wildcard map[string]*host // by what follows "*."
	names    []string
}

// host has the routes of one host name. Lists are in order of precedence.
type host struct {
	name   string
	limits Limits
	exact  map[string][]*candidate // by path
	prefix map[string][]*candidate // by path without a final '/'
	tcp    map[uint16]*TCP
}

// New makes a table. The error is an *InvalidError with every problem.
func New(cfg Config) (*Table, error) {
	if err := cfg.check().err(); err != nil {
		return nil, err
	}
	t := &Table{exact: map[string]*host{}, wildcard: map[string]*host{}}
	for i := range cfg.Routes {
		t.addRoute(&cfg.Routes[i])
	}
	for i := range cfg.TCP {
		t.addTCP(&cfg.TCP[i])
	}
	for _, h := range cfg.Hosts {
		t.host(h.Name).limits = h.Limits
	}
	for h := range t.hosts() {
		h.sort()
		t.names = append(t.names, h.name)
	}
	slices.Sort(t.names)
	return t, nil
}

// Hosts are all host names of the table, sorted. Not to be changed.
func (t *Table) Hosts() []string { return t.names }

func (t *Table) hosts() iter.Seq[*host] {
	return func(yield func(*host) bool) {
		for _, m := range []map[string]*host{t.exact, t.wildcard} {
			for h := range maps.Values(m) {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// host finds or makes the entry of a host name.
func (t *Table) host(name string) *host {
	m, key := t.exact, name
	if rest, wild := strings.CutPrefix(name, "*."); wild {
		m, key = t.wildcard, rest
	}
	h := m[key]
	if h == nil {
		h = &host{name: name, exact: map[string][]*candidate{}, prefix: map[string][]*candidate{}, tcp: map[uint16]*TCP{}}
		m[key] = h
	}
	return h
}

// find is the entry that answers for a name: an exact one, or else the wildcard
// one label above. What the exact one lacks is not looked for in the wildcard.
func (t *Table) find(name string) *host {
	if h := t.exact[name]; h != nil {
		return h
	}
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return t.wildcard[name[dot+1:]]
	}
	return nil
}

// Host is the host that answers for a name, which may be a wildcard. A name is
// in lower case, without port and final dot.
func (t *Table) Host(name string) (pattern string, ok bool) {
	if h := t.find(name); h != nil {
		return h.name, true
	}
	return "", false
}

// LimitsOf are the limits of a host of the table, by the name it has there.
func (t *Table) LimitsOf(name string) Limits {
	m := t.exact
	if rest, wild := strings.CutPrefix(name, "*."); wild {
		m, name = t.wildcard, rest
	}
	if h := m[name]; h != nil {
		return h.limits
	}
	return Limits{}
}

// Found is where a request leads.
type Found struct {
	Rule    *Rule  // not to be changed
	Source  string // of the route
	Host    string // the host name of the route, which may be a wildcard
	Pattern string // the path that matched, for records; without final '/' where it is a prefix
	Prefix  bool   // Pattern is a prefix
}

// Request is what routes look at.
type Request struct {
	Host   string // lower case, without port and final dot
	Path   string // decoded, begins with '/'
	Method string
	Header http.Header
	Query  string // as in the URL; parsed only where a match asks
}

// Lookup finds the rule for a request; none: Found.Rule is nil. hosted says whether the host
// is known at all. Without query matches it takes no memory.
func (t *Table) Lookup(r *Request) (f Found, hosted bool) {
	h := t.find(r.Host)
	if h == nil {
		return Found{}, false
	}
	q := question{Request: r}
	if c := first(h.exact[r.Path], &q); c != nil {
		return c.found(h), true
	}
	if len(h.prefix) == 0 {
		return Found{}, true
	}
	for p := strings.TrimSuffix(r.Path, "/"); ; {
		if c := first(h.prefix[p], &q); c != nil {
			return c.found(h), true
		}
		slash := strings.LastIndexByte(p, '/')
		if slash < 0 {
			return Found{}, true
		}
		p = p[:slash]
	}
}

// Backends are those of all rules for requests, with the host names that lead
// to them. Not to be changed.
func (t *Table) Backends() iter.Seq2[string, *Backend] {
	return func(yield func(string, *Backend) bool) {
		for h := range t.hosts() {
			for c := range h.candidates() {
				for i := range c.rule.Backends {
					if !yield(h.name, &c.rule.Backends[i]) {
						return
					}
				}
			}
		}
	}
}

func (h *host) candidates() iter.Seq[*candidate] {
	return func(yield func(*candidate) bool) {
		for _, m := range []map[string][]*candidate{h.exact, h.prefix} {
			for _, list := range m {
				for _, c := range list {
					if !yield(c) {
						return
					}
				}
			}
		}
	}
}

// TCP finds where CONNECT to a host and port leads; nil: nowhere.
func (t *Table) TCP(name string, port uint16) *TCP {
	if h := t.find(name); h != nil {
		return h.tcp[port]
	}
	return nil
}

// question is a request, and what was parsed of it on the way.
type question struct {
	*Request
	query url.Values
}

func (q *question) param(name string) (string, bool) {
	if q.query == nil {
		q.query, _ = url.ParseQuery(q.Query) // what cannot be read is not there
	}
	v := q.query[name]
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}
