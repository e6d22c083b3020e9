// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"time"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/ingress/route"
)

// rules is what the rules of a route came to.
type rules struct {
	list     []route.Rule
	invalid  []Finding // the route cannot be: nothing of it is used
	partly   []Finding // some of its requests are refused
	ignored  []string  // fields without which it works
	backends *backends
}

// invalidate: a match that cannot be expressed makes the whole route unusable.
// Without it, requests would go where a broader match leads.
func (r *rules) invalidate(format string, args ...any) {
	r.invalid = append(r.invalid, Finding{string(gateway.RouteReasonUnsupportedValue), fmt.Sprintf(format, args...)})
}

func httpRules(o *gateway.HTTPRoute, b *backends) *rules {
	r := &rules{backends: b}
	for i := range o.Spec.Rules {
		in := &o.Spec.Rules[i]
		out := route.Rule{Timeouts: r.timeouts(in.Timeouts)}
		for j := range in.Matches {
			out.Matches = append(out.Matches, r.httpMatch(&in.Matches[j]))
		}
		why := ""
		for j := range in.Filters {
			if w := httpFilter(&in.Filters[j], &out); w != "" {
				why = w
			}
		}
		if out.Redirect == nil {
			for j := range in.BackendRefs {
				out.Backends = append(out.Backends, r.httpBackend(&in.BackendRefs[j]))
			}
		}
		if in.Retry != nil {
			r.ignored = append(r.ignored, "retry")
		}
		if in.SessionPersistence != nil {
			r.ignored = append(r.ignored, "sessionPersistence")
		}
		r.add(&out, why)
	}
	if len(o.Spec.Rules) == 0 { // the API server fills in a rule that has nothing behind it
		r.add(&route.Rule{}, "")
	}
	return r
}

// add puts a rule into the list. One that lacks something that it asks for
// refuses its requests: to pass them on without would be something else than
// was asked for.
func (r *rules) add(out *route.Rule, why string) {
	switch {
	case why != "":
		r.partly = append(r.partly, Finding{string(gateway.RouteReasonUnsupportedValue), why})
		out.Redirect, out.Rewrite = nil, nil
		out.Backends = []route.Backend{{Weight: 1, Refuse: why}}
	case out.Redirect == nil && len(out.Backends) == 0:
		out.Backends = []route.Backend{{Weight: 1, Refuse: "the rule names no backend"}}
	}
	r.list = append(r.list, *out)
}

func (r *rules) httpMatch(in *gateway.HTTPRouteMatch) (out route.Match) {
	out.Path = &route.Path{Kind: route.Prefix, Value: "/"}
	if p := in.Path; p != nil {
		if p.Value != nil {
			out.Path.Value = *p.Value
		}
		switch kind := value(p.Type); kind {
		case "", string(gateway.PathMatchPathPrefix):
		case string(gateway.PathMatchExact):
			out.Path.Kind = route.Exact
		default:
			r.invalidate("a path cannot be matched by %s", short(kind))
		}
	}
	out.Method = value(in.Method)
	for i := range in.Headers {
		h := &in.Headers[i]
		if h.Type != nil && *h.Type != gateway.HeaderMatchExact {
			r.invalidate("a header cannot be matched by %s", short(value(h.Type)))
		}
		out.Headers = append(out.Headers, route.Pair{Name: string(h.Name), Value: h.Value})
	}
	for i := range in.QueryParams {
		q := &in.QueryParams[i]
		if q.Type != nil && *q.Type != gateway.QueryParamMatchExact {
			r.invalidate("a query parameter cannot be matched by %s", short(value(q.Type)))
		}
		out.Query = append(out.Query, route.Pair{Name: string(q.Name), Value: q.Value})
	}
	return out
}

// httpFilter applies a filter to a rule, or says why it cannot.
func httpFilter(f *gateway.HTTPRouteFilter, out *route.Rule) string {
	switch {
	case f.Type == gateway.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
		out.Request = headers(f.RequestHeaderModifier)
	case f.Type == gateway.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
		out.Response = headers(f.ResponseHeaderModifier)
	case f.Type == gateway.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
		out.Redirect = redirect(f.RequestRedirect)
	case f.Type == gateway.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
		out.Rewrite = &route.Rewrite{Host: value(f.URLRewrite.Hostname), Path: pathChange(f.URLRewrite.Path)}
	default:
		return fmt.Sprintf("filter %s is not supported: the requests of its rule are refused", short(string(f.Type)))
	}
	return ""
}

func (r *rules) httpBackend(ref *gateway.HTTPBackendRef) route.Backend {
	out := r.backends.of(&ref.BackendRef, route.HTTP)
	for i := range ref.Filters {
		var rule route.Rule
		why := httpFilter(&ref.Filters[i], &rule)
		if rule.Redirect != nil || rule.Rewrite != nil {
			why = fmt.Sprintf("filter %s of a backend is not supported: its requests are refused", short(string(ref.Filters[i].Type)))
		}
		r.backendFilter(&out, &rule, why)
	}
	return out
}

func (r *rules) backendFilter(out *route.Backend, rule *route.Rule, why string) {
	if why != "" {
		out.Refuse = why
		r.partly = append(r.partly, Finding{string(gateway.RouteReasonUnsupportedValue), why})
		return
	}
	if rule.Request != nil {
		out.Request = rule.Request
	}
	if rule.Response != nil {
		out.Response = rule.Response
	}
}

func (r *rules) timeouts(in *gateway.HTTPRouteTimeouts) (out route.Timeouts) {
	if in == nil {
		return out
	}
	for _, t := range []struct {
		from *gateway.Duration
		to   *time.Duration
	}{{in.Request, &out.Request}, {in.BackendRequest, &out.Backend}} {
		if t.from == nil {
			continue
		}
		d, err := time.ParseDuration(string(*t.from))
		if err != nil || d < 0 {
			r.invalidate("%s is no time-out", short(string(*t.from)))
			continue
		}
		*t.to = d
	}
	return out
}

func headers(in *gateway.HTTPHeaderFilter) *route.Headers {
	pairs := func(list []gateway.HTTPHeader) (out []route.Pair) {
		for _, h := range list {
			out = append(out, route.Pair{Name: string(h.Name), Value: h.Value})
		}
		return out
	}
	return &route.Headers{Set: pairs(in.Set), Add: pairs(in.Add), Remove: in.Remove}
}

func redirect(in *gateway.HTTPRequestRedirectFilter) *route.Redirect {
	out := &route.Redirect{Scheme: value(in.Scheme), Host: value(in.Hostname), Path: pathChange(in.Path)}
	if in.Port != nil {
		out.Port = portNumber(*in.Port)
	}
	if in.StatusCode != nil {
		out.Status = *in.StatusCode
	}
	return out
}

// pathChange leaves what it does not know to the table's own check.
func pathChange(in *gateway.HTTPPathModifier) *route.PathChange {
	if in == nil {
		return nil
	}
	out := &route.PathChange{}
	switch in.Type {
	case gateway.FullPathHTTPPathModifier:
		out.Full = in.ReplaceFullPath
	case gateway.PrefixMatchHTTPPathModifier:
		out.Prefix = in.ReplacePrefixMatch
	}
	return out
}

func grpcRules(o *gateway.GRPCRoute, b *backends) *rules {
	r := &rules{backends: b}
	for i := range o.Spec.Rules {
		in := &o.Spec.Rules[i]
		var out route.Rule
		for j := range in.Matches {
			out.Matches = append(out.Matches, r.grpcMatch(&in.Matches[j]))
		}
		why := ""
		for j := range in.Filters {
			if w := grpcFilter(&in.Filters[j], &out); w != "" {
				why = w
			}
		}
		for j := range in.BackendRefs {
			ref := &in.BackendRefs[j]
			backend := b.of(&ref.BackendRef, route.H2C)
			for k := range ref.Filters {
				var rule route.Rule
				w := grpcFilter(&ref.Filters[k], &rule)
				r.backendFilter(&backend, &rule, w)
			}
			out.Backends = append(out.Backends, backend)
		}
		if in.SessionPersistence != nil {
			r.ignored = append(r.ignored, "sessionPersistence")
		}
		r.add(&out, why)
	}
	if len(o.Spec.Rules) == 0 {
		r.add(&route.Rule{}, "")
	}
	return r
}

func (r *rules) grpcMatch(in *gateway.GRPCRouteMatch) (out route.Match) {
	if m := in.Method; m != nil {
		if m.Type != nil && *m.Type != gateway.GRPCMethodMatchExact {
			r.invalidate("a method cannot be matched by %s", short(value(m.Type)))
		}
		if value(m.Service) != "" || value(m.Method) != "" {
			out.GRPC = &route.GRPC{Service: value(m.Service), Method: value(m.Method)}
		}
	}
	for i := range in.Headers {
		h := &in.Headers[i]
		if h.Type != nil && *h.Type != gateway.GRPCHeaderMatchExact {
			r.invalidate("a header cannot be matched by %s", short(value(h.Type)))
		}
		out.Headers = append(out.Headers, route.Pair{Name: string(h.Name), Value: h.Value})
	}
	return out
}

func grpcFilter(f *gateway.GRPCRouteFilter, out *route.Rule) string {
	switch {
	case f.Type == gateway.GRPCRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
		out.Request = headers(f.RequestHeaderModifier)
	case f.Type == gateway.GRPCRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
		out.Response = headers(f.ResponseHeaderModifier)
	default:
		return fmt.Sprintf("filter %s is not supported: the requests of its rule are refused", short(string(f.Type)))
	}
	return ""
}
