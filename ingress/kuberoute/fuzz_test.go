// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// FuzzObjects: whatever the API server says, there is a table; its hosts are
// hosts that the manifest has; and what is said about the objects is bounded.
func FuzzObjects(f *testing.F) {
	for _, text := range []string{
		base + one("hostnames: [bank.example, '*.example']\n"+toWeb),
		base + grpc("rules: [{matches: [{method: {service: a.B, method: C}, headers: [{name: x, value: y}]}], backendRefs: [{name: grpc, port: 80, weight: 0}]}]"),
		base + one("rules: [{matches: [{path: {value: /a}, method: GET, queryParams: [{name: a, value: b}]}], timeouts: {request: 10s}, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: web, port: 80}]}]"),
		ourClass + ing("tls: [{secretName: x}]\ndefaultBackend: {service: {name: web, port: {name: p80}}}\nrules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]"),
		"kind: ReferenceGrant\nmetadata: {namespace: e}\nspec: {from: [{kind: HTTPRoute}], to: [{kind: Service}]}\n---\nkind: Namespace\nmetadata: {name: d, labels: {a: b}}\n",
	} {
		var lines []string
		for _, doc := range documents(f, text) {
			raw, err := json.Marshal(doc)
			must(f, err)
			lines = append(lines, string(raw))
		}
		f.Add(strings.Join(lines, "\n"))
	}
	f.Add(`{"kind":"Gateway","spec":{"gatewayClassName":"c8s","listeners":[{"port":-1,"hostname":"*"},{"hostname":"*."},{"tls":{"certificateRefs":[{}]},"allowedRoutes":{"namespaces":{"from":"Selector","selector":{"matchExpressions":[{"operator":"?"}]}}}}]}}`)
	w := world(f)
	allowed := func(host string) bool {
		_, d := w.Manifest.IngressHost(strings.Replace(host, "*.", "any.", 1))
		return d.Allowed
	}
	w.Refused = map[string]policy.Decision{"d/web": {Code: policy.CodeIngressWorkload}}
	f.Fuzz(func(t *testing.T, text string) {
		o := objects(t, base)
		for line := range strings.Lines(text) {
			var meta struct {
				Kind string `json:"kind"`
			}
			if json.Unmarshal([]byte(line), &meta) == nil {
				_ = o.add(meta.Kind, []byte(line))
			}
		}
		r := Build(o, w)
		for _, u := range r.Updates(&w, epoch) {
			raw, err := json.Marshal(u)
			if err != nil || resources[u.Kind] == "" || len(u.Findings) > maxFindings+1 {
				t.Fatalf("%+v: %v", u, err)
			}
			if most := 16*maxMessage*(1+len(r.gates))*maxConditions*maxParents + 8*len(text); len(raw) > most {
				t.Fatalf("an update of %d bytes", len(raw))
			}
		}
		table, err := route.New(r.Routes)
		if err != nil {
			t.Fatalf("routes that were checked one by one make no table: %v", err)
		}
		for _, host := range table.Hosts() {
			if !allowed(host) {
				t.Fatalf("the manifest does not have %q", host)
			}
		}
	})
}
