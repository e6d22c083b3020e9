// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/ingress/route"
)

const ourClass = "kind: IngressClass\nmetadata: {name: c8s}\nspec: {controller: c8s.dev/ingress}\n---\n"

func ing(spec string) string {
	return "kind: Ingress\nmetadata: {namespace: d, name: i}\nspec:\n  ingressClassName: c8s\n" + indent(spec)
}

func path(p, service string) string {
	return "{path: " + p + ", pathType: Prefix, backend: {service: {name: " + service + ", port: {number: 80}}}}"
}

func TestIngresses(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
		finds      []string // beginnings of "Reason message"
	}{
		{
			name: "hosts and paths", text: ing("rules: [{host: bank.example, http: {paths: [" + path("/", "web") + ", " + path("/next", "next") + "]}}]"),
			want: []string{"bank.example/ -> d/web:80", "bank.example/next -> d/next:80"},
		},
		{
			name: "a port by name, an exact path", text: ing("rules: [{host: bank.example, http: {paths: [{path: /a, pathType: Exact, backend: {service: {name: web, port: {name: p81}}}}]}}]"),
			want: []string{"bank.example=/a -> d/web:p81"},
		},
		{
			name: "a wildcard is one label", text: ing("rules: [{host: '*.bank.example', http: {paths: [" + path("/", "web") + "]}}]"),
			want: []string{"*.bank.example/ -> d/web:80"},
		},
		{
			name: "and not two", text: ing("rules: [{host: '*.example', http: {paths: [" + path("/", "web") + "]}}]"),
			want: []string{"bank.example/ -> d/web:80", "shop.example/ -> d/web:80"},
		},
		{
			name: "no host is all of the manifest's that nobody names", text: ing("rules: [{http: {paths: [" + path("/", "web") + "]}}, {host: shop.example, http: {paths: [" + path("/x", "next") + "]}}]"),
			want: []string{"*.bank.example/ -> d/web:80", "bank.example/ -> d/web:80", "shop.example/x -> d/next:80"},
		},
		{
			name: "a default backend is for what is left", text: ing("defaultBackend: {service: {name: next, port: {number: 80}}}\nrules: [{host: bank.example, http: {paths: [" + path("/a", "web") + "]}}]"),
			want: []string{"*.bank.example -> d/next:80", "bank.example -> d/next:80", "bank.example/a -> d/web:80", "shop.example -> d/next:80"},
		},
		{
			name: "a host that the manifest does not have", text: ing("rules: [{host: evil.example, http: {paths: [" + path("/", "web") + "]}}]"),
			finds: []string{`IngressHostUnknown host "evil.example": refused (ingress-host-unknown)`},
		},
		{
			name: "no such Service", text: ing("rules: [{host: bank.example, http: {paths: [" + path("/", "none") + "]}}]"), want: []string{"bank.example/ -> refused"},
			finds: []string{`BackendNotFound there is no Service "d/none"`},
		},
		{
			name: "no Service at all", text: ing("rules: [{host: bank.example, http: {paths: [{path: /, pathType: Prefix, backend: {resource: {kind: Bucket, name: x}}}]}}]"), want: []string{"bank.example/ -> refused"},
			finds: []string{"InvalidKind"},
		},
		{
			name: "a type of paths that nobody knows", text: ing("rules: [{host: bank.example, http: {paths: [{path: /, pathType: Regex, backend: {service: {name: web, port: {number: 80}}}}]}}]"),
			finds: []string{"UnsupportedValue pathType"},
		},
		{
			name: "a path that no request has", text: ing("rules: [{host: bank.example, http: {paths: [" + path("/a/../b", "web") + "]}}]"),
			finds: []string{"UnsupportedValue"},
		},
		{name: "another class", text: strings.Replace(ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"), "ingressClassName: c8s", "ingressClassName: nginx", 1)},
		{name: "no class, and none by default", text: strings.Replace(ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"), "ingressClassName: c8s", "", 1)},
		{
			name: "the class by its old annotation", text: strings.Replace(strings.Replace(ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"), "ingressClassName: c8s", "", 1),
				"name: i}", "name: i, annotations: {kubernetes.io/ingress.class: c8s}}", 1), want: []string{"bank.example/ -> d/web:80"},
		},
		{
			name: "no class, and ours by default", text: strings.Replace(ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"), "ingressClassName: c8s", "", 1) +
				"---\nkind: IngressClass\nmetadata: {name: usual, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}\nspec: {controller: c8s.dev/ingress}\n", want: []string{"bank.example/ -> d/web:80"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			r := Build(objects(t, ourClass+tt.text), w)
			if diff := cmp.Diff(tt.want, routes(&r.Routes)); diff != "" {
				t.Error(diff)
			}
			var found []Finding
			for _, i := range r.ingresses {
				found = append(found, i.findings()...)
			}
			if len(found) != len(tt.finds) {
				t.Fatalf("findings %q, want %q", found, tt.finds)
			}
			for i, f := range found {
				if got := f.Reason + " " + f.Message; !strings.HasPrefix(got, tt.finds[i]) {
					t.Errorf("%q, want %q", got, tt.finds[i])
				}
			}
		})
	}
}

// The default backend comes last, however old it is and whoever has the host.
func TestADefaultBackendYields(t *testing.T) {
	text := ourClass + strings.Replace(ing("defaultBackend: {service: {name: next, port: {number: 80}}}"), "name: i}", "name: a, creationTimestamp: '2020-01-01T00:00:00Z'}", 1) + "---\n" +
		strings.Replace(ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"), "name: i}", "name: i, creationTimestamp: '2026-01-01T00:00:00Z'}", 1)
	r := Build(objects(t, text), world(t))
	table, err := route.New(r.Routes)
	must(t, err)
	for host, want := range map[string]string{"bank.example": "d/web", "shop.example": "d/next"} {
		f, _ := table.Lookup(&route.Request{Host: host, Path: "/x", Method: "GET"})
		if f.Rule == nil || f.Rule.Backends[0].Service != want {
			t.Errorf("%s leads to %+v, want %s", host, f.Rule, want)
		}
	}
}

func TestWhatOneObjectBringsIsBounded(t *testing.T) {
	var rules, paths []string
	for i := range maxIngressPaths + 50 {
		paths = append(paths, path(fmt.Sprintf("/%d", i), "web"))
	}
	for range maxIngressRules + 50 {
		rules = append(rules, "{host: shop.example, http: {paths: ["+path("/", "none")+"]}}")
	}
	r := Build(objects(t, ourClass+ing("rules: [{host: bank.example, http: {paths: ["+strings.Join(paths, ", ")+"]}}, "+strings.Join(rules, ", ")+"]")), world(t))
	if n := len(r.Routes.Routes[0].Rules); n != maxIngressPaths {
		t.Errorf("%d paths of one rule", n)
	}
	if n := len(r.Routes.Routes); n != maxIngressRules {
		t.Errorf("%d rules of one object", n)
	}
	if n := len(r.ingresses[0].findings()); n != maxFindings {
		t.Errorf("%d findings about one object", n)
	}
}

func TestSecretsAreSaidToBeUnread(t *testing.T) {
	w := world(t)
	r := Build(objects(t, ourClass+ing("tls: [{secretName: cert}]\nrules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]")), w)
	all := r.Updates(&w, epoch)
	if len(all) != 1 || len(all[0].Findings) != 1 || all[0].Findings[0].Reason != "SecretNotRead" || r.Problems != 0 {
		t.Errorf("%+v", all)
	}
}
