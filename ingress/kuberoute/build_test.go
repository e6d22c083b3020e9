// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/policy"
)

// one is an HTTPRoute of namespace d; spec is what it has besides its Gateway.
func one(spec string) string {
	return "kind: HTTPRoute\nmetadata: {namespace: d, name: r}\nspec:\n  parentRefs: [{name: gw}]\n" + indent(spec)
}

func grpc(spec string) string { return strings.Replace(one(spec), "HTTPRoute", "GRPCRoute", 1) }

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ") + "\n"
}

const toWeb = "rules: [{backendRefs: [{name: web, port: 80}]}]"

func TestHTTPRoutesAndGRPCRoutes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		text     string
		want     []string
		accepted string // beginnings of conditions
		resolved string
		manifest string
		partly   string
	}{
		{
			name: "a host and a Service", text: one("hostnames: [bank.example]\n" + toWeb), want: []string{"bank.example -> d/web:80"},
			accepted: "True Accepted", resolved: "True ResolvedRefs", manifest: "True Allowed",
		},
		{
			name: "no host is all of the manifest's", text: one(toWeb),
			want:     []string{"*.bank.example -> d/web:80", "bank.example -> d/web:80", "shop.example -> d/web:80"},
			accepted: "True Accepted", manifest: "True Allowed",
		},
		{
			name: "a wildcard is what the manifest has below it", text: one("hostnames: ['*.example']\n" + toWeb),
			want:     []string{"*.bank.example -> d/web:80", "bank.example -> d/web:80", "shop.example -> d/web:80"},
			accepted: "True Accepted", manifest: "True Allowed",
		},
		{
			name: "a name under the manifest's wildcard", text: one("hostnames: [api.bank.example]\n" + toWeb), want: []string{"api.bank.example -> d/web:80"},
			accepted: "True Accepted", manifest: "True Allowed",
		},
		{
			name: "a host that the manifest does not have", text: one("hostnames: [evil.example]\n" + toWeb),
			accepted: "False NotAllowedByManifest the manifest has none", resolved: "True ResolvedRefs", manifest: "False IngressHostUnknown refused (ingress-host-unknown)",
		},
		{
			name: "two labels below a wildcard for one", text: one("hostnames: [a.b.bank.example]\n" + toWeb),
			accepted: "False NotAllowedByManifest", manifest: "False IngressHostUnknown",
		},
		{
			name: "one host of two", text: one("hostnames: [bank.example, evil.example]\n" + toWeb), want: []string{"bank.example -> d/web:80"},
			accepted: "True Accepted", manifest: "False IngressHostUnknown",
		},
		{
			name: "no such Service", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: none, port: 80}]}]"), want: []string{"bank.example -> refused"},
			accepted: "True Accepted", resolved: `False BackendNotFound there is no Service "d/none"`,
		},
		{
			name: "no such port", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: web, port: 8080}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False BackendNotFound",
		},
		{
			name: "UDP", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: dns, port: 80}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False BackendNotFound",
		},
		{
			name: "a name outside the cluster", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: out, port: 80}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False InvalidKind",
		},
		{
			name: "TLS at the pod", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: tls, port: 443}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False UnsupportedProtocol",
		},
		{
			name: "no Service at all", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{group: x.example, kind: Bucket, name: web, port: 80}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False InvalidKind",
		},
		{
			name: "without a port", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: web}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False UnsupportedValue",
		},
		{
			name: "another namespace's Service", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: web, namespace: e, port: 80}]}]"), want: []string{"bank.example -> refused"},
			resolved: "False RefNotPermitted",
		},
		{
			name: "with a grant", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: web, namespace: e, port: 80}]}]") + `---
kind: ReferenceGrant
metadata: {namespace: e, name: g}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: d}], to: [{group: "", kind: Service, name: web}]}
`, want: []string{"bank.example -> e/web:80"}, resolved: "True ResolvedRefs",
		},
		{
			name: "a grant for another kind of route", text: one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: web, namespace: e, port: 80}]}]") + `---
kind: ReferenceGrant
metadata: {namespace: e, name: g}
spec: {from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: d}], to: [{group: "", kind: Service}]}
`, want: []string{"bank.example -> refused"}, resolved: "False RefNotPermitted",
		},
		{
			name: "paths and what pods speak", text: one(`
hostnames: [bank.example]
rules:
  - matches: [{path: {type: Exact, value: /a}}, {path: {value: /b}}]
    backendRefs: [{name: web, port: 80, weight: 9}, {name: next, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /grpc}}]
    backendRefs: [{name: grpc, port: 80}]
`), want: []string{"bank.example/b -> d/web:80+d/next:80", "bank.example/grpc -> d/grpc:80 h2c", "bank.example=/a -> d/web:80+d/next:80"}, accepted: "True Accepted",
		},
		{
			name: "a match by a regular expression leaves nothing of the route", text: one(`
hostnames: [bank.example]
rules:
  - matches: [{path: {type: RegularExpression, value: /a.*}}]
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]
`), accepted: "False UnsupportedValue a path cannot be matched by",
		},
		{
			name: "a filter that is not supported refuses its requests", text: one(`
hostnames: [bank.example]
rules:
  - matches: [{path: {value: /a}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]
`), want: []string{"bank.example -> d/web:80", "bank.example/a -> refused"}, accepted: "True Accepted", partly: "True UnsupportedValue filter \"RequestMirror\"",
		},
		{
			name: "a redirect", text: one("hostnames: [bank.example]\nrules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: shop.example, statusCode: 301}}]}]"),
			want: []string{"bank.example -> redirect"}, accepted: "True Accepted",
		},
		{
			name: "headers that are the server's own", text: one("hostnames: [bank.example]\nrules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Forwarded-For, value: x}]}}], backendRefs: [{name: web, port: 80}]}]"),
			accepted: "False UnsupportedValue",
		},
		{
			name: "nothing behind it", text: one("hostnames: [bank.example]"), want: []string{"bank.example -> refused"}, accepted: "True Accepted",
		},
		{
			name: "what is ignored is said", text: one("hostnames: [bank.example]\nrules: [{retry: {attempts: 3}, backendRefs: [{name: web, port: 80}]}]"), want: []string{"bank.example -> d/web:80"},
			accepted: "True Accepted not supported, and ignored: retry",
		},
		{
			name: "a GRPCRoute", text: grpc("hostnames: [bank.example]\nrules: [{matches: [{method: {service: bank.Ledger, method: Get}}], backendRefs: [{name: web, port: 80}]}]"),
			want: []string{"bank.examplebank.Ledger/Get -> d/web:80 h2c"}, accepted: "True Accepted", resolved: "True ResolvedRefs",
		},
		{
			name: "a GRPCRoute by a regular expression", text: grpc("hostnames: [bank.example]\nrules: [{matches: [{method: {type: RegularExpression, service: .*}}], backendRefs: [{name: web, port: 80}]}]"),
			accepted: "False UnsupportedValue",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			r := Build(objects(t, base+tt.text), w)
			if diff := cmp.Diff(tt.want, routes(&r.Routes)); diff != "" {
				t.Error(diff)
			}
			all := parentsOf(t, r, &w)
			for kind, want := range map[string]string{"Accepted": tt.accepted, "ResolvedRefs": tt.resolved, ConditionManifest: tt.manifest, "PartiallyInvalid": tt.partly} {
				if got := said(all, kind); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", kind, got, want)
				}
			}
			if healthy := !strings.Contains(tt.accepted+tt.resolved+tt.manifest, "False") && tt.partly == ""; healthy != (r.Problems == 0) {
				t.Errorf("%d objects with problems", r.Problems)
			}
		})
	}
}

func TestWhichRouteAListenerTakes(t *testing.T) {
	class := base[:strings.Index(base, "---")]
	listeners := func(l string) string {
		return class + "---\nkind: Gateway\nmetadata: {namespace: infra, name: gw}\nspec:\n  gatewayClassName: c8s\n  listeners:\n" + indent(indent(l)) + "---\n" +
			"kind: Namespace\nmetadata: {name: d, labels: {team: bank}}\n---\n"
	}
	from := func(ref, hosts string) string {
		return "kind: HTTPRoute\nmetadata: {namespace: d, name: r}\nspec:\n  parentRefs: [{name: gw, namespace: infra" + ref + "}]\n  hostnames: " + hosts + "\n  " + toWeb + "\n"
	}
	const all = ", allowedRoutes: {namespaces: {from: All}}}"
	for _, tt := range []struct {
		name, listeners, route string
		want                   []string
		accepted               string
	}{
		{"its own namespace only, when nothing is said", "- {name: a, port: 443, protocol: HTTPS}", from("", "[bank.example]"), nil, "False NotAllowedByListeners"},
		{"all namespaces", "- {name: a, port: 443, protocol: HTTPS" + all, from("", "[bank.example]"), []string{"bank.example -> d/web:80"}, "True Accepted"},
		{"none", "- {name: a, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: None}}}", from("", "[bank.example]"), nil, "False NotAllowedByListeners"},
		{"by a label", "- {name: a, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: bank}}}}}", from("", "[bank.example]"), []string{"bank.example -> d/web:80"}, "True Accepted"},
		{"by another label", "- {name: a, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: shop}}}}}", from("", "[bank.example]"), nil, "False NotAllowedByListeners"},
		{"a selector that selects nothing", "- {name: a, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: Selector}}}", from("", "[bank.example]"), nil, "False NotAllowedByListeners"},
		{"another kind", "- {name: a, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}", from("", "[bank.example]"), nil, "False NotAllowedByListeners"},
		{"its section", "- {name: a, port: 443, protocol: HTTPS" + all, from(", sectionName: a", "[bank.example]"), []string{"bank.example -> d/web:80"}, "True Accepted"},
		{"no such section", "- {name: a, port: 443, protocol: HTTPS" + all, from(", sectionName: b", "[bank.example]"), nil, "False NoMatchingParent"},
		{"another port", "- {name: a, port: 443, protocol: HTTPS" + all, from(", port: 8443", "[bank.example]"), nil, "False NoMatchingParent"},
		{"the listener's host", "- {name: a, port: 443, protocol: HTTPS, hostname: shop.example" + all, from("", "[bank.example]"), nil, "False NoMatchingListenerHostname"},
		{"the listener's host, for a route for all", "- {name: a, port: 443, protocol: HTTPS, hostname: shop.example" + all, from("", "[]"), []string{"shop.example -> d/web:80"}, "True Accepted"},
		{"the listener's wildcard", "- {name: a, port: 443, protocol: HTTPS, hostname: '*.bank.example'" + all, from("", "[bank.example, api.bank.example]"), []string{"api.bank.example -> d/web:80"}, "True Accepted"},
		{"the route's wildcard", "- {name: a, port: 443, protocol: HTTPS, hostname: api.bank.example" + all, from("", "['*.bank.example']"), []string{"api.bank.example -> d/web:80"}, "True Accepted"},
		{"plain HTTP takes no effect", "- {name: a, port: 80, protocol: HTTP" + all, from("", "[bank.example]"), nil, "True Accepted it takes no effect"},
		{"a port that is not served", "- {name: a, port: 8443, protocol: HTTPS" + all, from("", "[bank.example]"), nil, "False NoMatchingParent"},
		{"TLS that ends elsewhere", "- {name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}" + all, from("", "[bank.example]"), nil, "False NoMatchingParent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			r := Build(objects(t, listeners(tt.listeners)+tt.route), w)
			if diff := cmp.Diff(tt.want, routes(&r.Routes)); diff != "" {
				t.Error(diff)
			}
			if got := said(parentsOf(t, r, &w), "Accepted"); !strings.HasPrefix(got, tt.accepted) {
				t.Errorf("accepted: %q, want %q", got, tt.accepted)
			}
		})
	}
}

// The most specific host has a name, whoever else is for it; and of equal ones
// both do.
func TestMoreSpecificHostsWin(t *testing.T) {
	route := func(name, hosts string) string {
		return "---\nkind: HTTPRoute\nmetadata: {namespace: d, name: " + name + "}\nspec:\n  parentRefs: [{name: gw}]\n  hostnames: " + hosts + "\n  rules: [{backendRefs: [{name: web, port: 80}], matches: [{path: {value: /" + name + "}}]}]\n"
	}
	r := Build(objects(t, base+"kind: Namespace\nmetadata: {name: d}\n"+route("any", "[]")+route("wide", "['*.example']")+route("near", "['*.bank.example']")+route("exact", "[api.bank.example]")+route("other", "[api.bank.example]")), world(t))
	want := []string{
		"*.bank.example/near -> d/web:80", "api.bank.example/exact -> d/web:80", "api.bank.example/other -> d/web:80",
		"bank.example/wide -> d/web:80", "shop.example/wide -> d/web:80",
	}
	if diff := cmp.Diff(want, routes(&r.Routes)); diff != "" {
		t.Error(diff)
	}
}

// What the API server says in whatever order comes to the same.
func TestTheOrderOfObjectsDoesNotMatter(t *testing.T) {
	w := world(t)
	text := base + one(toWeb) + "---\n" + strings.Replace(one("hostnames: [bank.example]\n"+toWeb), "name: r}", "name: q}", 1)
	o := objects(t, text)
	first := signature(&Build(o, w).Routes)
	o = objects(t, text)
	o.HTTPRoutes[0], o.HTTPRoutes[1] = o.HTTPRoutes[1], o.HTTPRoutes[0]
	if second := signature(&Build(o, w).Routes); first != second {
		t.Error("another order, another table")
	}
}

// Without a manifest nothing is allowed.
func TestWithoutAManifestThereAreNoRoutes(t *testing.T) {
	w := world(t)
	w.Manifest = nil
	r := Build(objects(t, base+one("hostnames: [bank.example]\n"+toWeb)), w)
	if len(r.Routes.Routes) != 0 {
		t.Errorf("%v", routes(&r.Routes))
	}
}

func TestOnlyOurClassesAreServed(t *testing.T) {
	text := strings.Replace(base, "c8s.dev/ingress", "example.com/other", 1) + one(toWeb)
	if r := Build(objects(t, text), world(t)); len(r.Routes.Routes)+len(r.attached)+len(r.gates)+len(r.classes) != 0 {
		t.Error("a class of another controller is served")
	}
	w := world(t)
	w.GatewayClass = "internal"
	if r := Build(objects(t, base+one(toWeb)), w); len(r.Routes.Routes)+len(r.attached)+len(r.gates)+len(r.classes) != 0 {
		t.Error("a class that is not the configured one is served")
	}
}

// What came of requests stands where the owner of the route looks.
func TestRefusedBackendsAreSaidOnTheirRoutes(t *testing.T) {
	w := world(t)
	w.Refused = map[string]policy.Decision{"d/web": {
		Code: "ingress-workload-not-allowed", Rule: "ingress[bank].backends", Expected: `"web"`, Actual: `"db"`, Remedy: "point the host's routes at one of these",
	}}
	got := said(parentsOf(t, Build(objects(t, base+one("hostnames: [bank.example]\n"+toWeb)), w), &w), ConditionManifest)
	for _, part := range []string{"False IngressWorkloadNotAllowed", "Service d/web", "ingress[bank].backends", `expected "web"`, `"db"`, "point the host's routes"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
	if got := said(parentsOf(t, Build(objects(t, base+one("hostnames: [evil.example]\n"+toWeb)), w), &w), ConditionManifest); strings.Contains(got, "workload") {
		t.Errorf("a route that gets no requests says what came of others': %q", got)
	}
	if got := said(parentsOf(t, Build(objects(t, base+one("hostnames: [bank.example]\nrules: [{backendRefs: [{name: next, port: 80}]}]")), w), &w), ConditionManifest); !strings.HasPrefix(got, "True") {
		t.Errorf("another Service's route says %q", got)
	}
}

// That a pod cannot be reached is another matter than that it may not be.
func TestUnreachedBackendsAreSaidWhileTheyAre(t *testing.T) {
	w := world(t)
	text := base + one("hostnames: [bank.example]\n"+toWeb)
	w.Refused = map[string]policy.Decision{"d/web": {Code: "peer-refused-certificate", Actual: "remote error"}}
	o := objects(t, text)
	r := Build(o, w)
	all := parentsOf(t, r, &w)
	if got := said(all, ConditionReached); !strings.HasPrefix(got, "False PeerRefusedCertificate Service d/web") {
		t.Errorf("%q", got)
	}
	if got := said(all, ConditionManifest); !strings.HasPrefix(got, "True") {
		t.Errorf("%q", got)
	}
	o.HTTPRoutes[0].Status.Parents, w.Refused, w.Cleared = all, nil, map[string]bool{"d/web": true}
	if got := said(parentsOf(t, Build(o, w), &w), ConditionReached); got != "" {
		t.Errorf("it is over, and the condition says %q", got)
	}
}
