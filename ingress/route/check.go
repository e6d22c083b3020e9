// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of a table, so that nobody can fill the ingress's memory with it.
const (
	MaxRoutes   = 20_000
	MaxHosts    = 20_000 // of all routes together, each counted as often as it is named
	maxRules    = 128    // of a route
	maxMatches  = 128    // of a rule
	maxBackends = 64     // of a rule
	maxPairs    = 32     // headers or parameters of a match or change
	maxText     = 4096   // bytes of a path or value
	maxWeight   = 1_000_000

	minInterval, maxInterval = time.Second, 10 * time.Minute
	maxTimeout               = 24 * time.Hour
)

// Check says what is wrong with one route, so that others can be used without it.
func (r *Route) Check() []Problem {
	c := &report{}
	r.check("$", c)
	return c.problems
}

// Check says what is wrong with one TCP route.
func (t *TCP) Check() []Problem {
	c := &report{}
	t.check("$", c)
	return c.problems
}

func (cfg *Config) check() *report {
	r := &report{}
	within(len(cfg.Routes), MaxRoutes, "$.routes", r)
	within(len(cfg.TCP), MaxRoutes, "$.tcp", r)
	within(len(cfg.Hosts), MaxHosts, "$.hosts", r)
	named := 0
	for i := range cfg.Routes {
		cfg.Routes[i].check(element("$.routes", i), r)
		named += len(cfg.Routes[i].Hosts)
	}
	within(named, MaxHosts, "$.routes", r)
	for i := range cfg.TCP {
		cfg.TCP[i].check(element("$.tcp", i), r)
	}
	seen := map[string]bool{}
	for i := range cfg.Hosts {
		cfg.Hosts[i].check(element("$.hosts", i), seen, r)
	}
	return r
}

func (h *Host) check(path string, seen map[string]bool, r *report) {
	checkHost(h.Name, path+".name", true, r)
	once(h.Name, path+".name", seen, r)
	l := &h.Limits
	if lowest := min(int64(l.Connections), int64(l.RequestsPerSecond), l.BodyBytes, int64(l.HeaderBytes)); lowest < 0 {
		r.add(path+".limits", "0 or more each", strconv.FormatInt(lowest, 10))
	}
}

func (route *Route) check(path string, r *report) {
	checkText(route.Source, path+".name", "a name", r)
	if len(route.Hosts) == 0 {
		r.add(path+".hosts", "at least one host", "none")
	}
	seen := map[string]bool{}
	for i, h := range route.Hosts {
		checkHost(h, element(path+".hosts", i), true, r)
		once(h, element(path+".hosts", i), seen, r)
	}
	if len(route.Rules) == 0 {
		r.add(path+".rules", "at least one rule", "none")
	}
	within(len(route.Rules), maxRules, path+".rules", r)
	for i := range route.Rules {
		route.Rules[i].check(element(path+".rules", i), r)
	}
}

func (rule *Rule) check(path string, r *report) {
	within(len(rule.Matches), maxMatches, path+".matches", r)
	prefixes := len(rule.Matches) == 0
	for i := range rule.Matches {
		m := &rule.Matches[i]
		m.check(element(path+".matches", i), r)
		prefixes = prefixes || m.GRPC == nil && (m.Path == nil || m.Path.Kind == Prefix)
	}
	if (len(rule.Backends) > 0) == (rule.Redirect != nil) {
		r.add(path, "either backends or a redirect", "both or none")
	}
	if rule.Redirect != nil {
		rule.Redirect.check(path+".redirect", prefixes, r)
	}
	if rule.Rewrite != nil {
		rule.Rewrite.check(path+".rewrite", prefixes, r)
	}
	rule.Request.check(path+".requestHeaders", r)
	rule.Response.check(path+".responseHeaders", r)
	span(rule.Timeouts.Request, 0, maxTimeout, path+".timeouts.request", r)
	span(rule.Timeouts.Backend, 0, maxTimeout, path+".timeouts.backend", r)
	checkBackends(rule.Backends, path+".backends", r)
}

func (t *TCP) check(path string, r *report) {
	checkText(t.Source, path+".name", "a name", r)
	checkHost(t.Host, path+".host", true, r)
	if t.Port == 0 {
		r.add(path+".port", "1 to 65535", "0")
	}
	if len(t.Backends) == 0 {
		r.add(path+".backends", "at least one backend", "none")
	}
	checkBackends(t.Backends, path+".backends", r)
}

func checkBackends(list []Backend, path string, r *report) {
	within(len(list), maxBackends, path, r)
	for i := range list {
		list[i].check(element(path, i), r)
	}
}

func (b *Backend) check(path string, r *report) {
	if b.Refuse == "" { // else nothing of it is used
		namespace, name, ok := strings.Cut(b.Service, "/")
		if !ok || !isLabel(namespace) || !isHost(name) {
			r.add(path+".service", `a Service, "namespace/name"`, quote(b.Service))
		}
		if (b.Port.Number != 0) == (b.Port.Name != "") {
			r.add(path+".port", "a port's number or name", quote(b.Port.String()))
		} else if b.Port.Name != "" && !isLabel(b.Port.Name) {
			r.add(path+".port", "a port's name (DNS label)", quote(b.Port.Name))
		}
	}
	if b.Protocol == "" {
		b.Protocol = HTTP
	}
	if b.Protocol != HTTP && b.Protocol != H2C {
		r.add(path+".protocol", `"http" or "h2c"`, quote(string(b.Protocol)))
	}
	if b.Weight > maxWeight {
		r.add(path+".weight", fmt.Sprintf("at most %d", maxWeight), strconv.FormatUint(uint64(b.Weight), 10))
	}
	if h := b.Health; h != nil {
		checkPath(h.Path, path+".health.path", r)
		if h.Interval != 0 {
			span(h.Interval, minInterval, maxInterval, path+".health.interval", r)
		}
	}
	b.Request.check(path+".requestHeaders", r)
	b.Response.check(path+".responseHeaders", r)
}

func (m *Match) check(path string, r *report) {
	if m.Path != nil {
		if m.Path.Kind != Exact && m.Path.Kind != Prefix {
			r.add(path+".path.type", `"exact" or "prefix"`, quote(string(m.Path.Kind)))
		}
		checkPath(m.Path.Value, path+".path.value", r)
	}
	if m.Method != "" && (!isToken(m.Method) || m.Method != strings.ToUpper(m.Method) || m.Method == http.MethodConnect) {
		r.add(path+".method", "a method in upper case, not CONNECT", quote(m.Method))
	}
	if g := m.GRPC; g != nil {
		if m.Path != nil || m.Method != "" {
			r.add(path+".grpc", "no path and method beside it", "some")
		}
		if g.Service == "" && g.Method == "" || strings.ContainsAny(g.Service+g.Method, "/% ?#") {
			r.add(path+".grpc", "a service, a method or both, without '/'", quote(g.Service+"/"+g.Method))
		}
	}
	checkPairs(m.Headers, path+".headers", true, r)
	checkPairs(m.Query, path+".query", false, r)
}

func (d *Redirect) check(path string, prefixes bool, r *report) {
	if d.Scheme != "" && d.Scheme != "http" && d.Scheme != "https" {
		r.add(path+".scheme", `"http" or "https"`, quote(d.Scheme))
	}
	if d.Host != "" {
		checkHost(d.Host, path+".host", false, r)
	}
	switch d.Status {
	case 0:
		d.Status = http.StatusFound
	case 301, 302, 303, 307, 308:
	default:
		r.add(path+".status", "301, 302, 303, 307 or 308", strconv.Itoa(d.Status))
	}
	d.Path.check(path+".path", prefixes, r)
}

func (w *Rewrite) check(path string, prefixes bool, r *report) {
	if w.Host != "" {
		checkHost(w.Host, path+".host", false, r)
	}
	w.Path.check(path+".path", prefixes, r)
}

func (p *PathChange) check(path string, prefixes bool, r *report) {
	switch {
	case p == nil:
	case (p.Full != nil) == (p.Prefix != nil):
		r.add(path, "either full or prefix", "both or none")
	case p.Full != nil:
		checkPath(*p.Full, path+".full", r)
	case !prefixes:
		r.add(path+".prefix", "a rule with a prefix match", "none")
	case *p.Prefix != "":
		checkPath(*p.Prefix, path+".prefix", r)
	}
}

func (h *Headers) check(path string, r *report) {
	if h == nil {
		return
	}
	checkPairs(h.Set, path+".set", true, r)
	checkPairs(h.Add, path+".add", true, r)
	within(len(h.Remove), maxPairs, path+".remove", r)
	for _, list := range [][]Pair{h.Set, h.Add} {
		for _, p := range list {
			checkChange(p.Name, path, r)
		}
	}
	for i, name := range h.Remove {
		if !isToken(name) {
			r.add(element(path+".remove", i), "a header's name", quote(name))
		}
		checkChange(name, path, r)
	}
}
