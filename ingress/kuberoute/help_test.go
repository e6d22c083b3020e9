// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

var epoch = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// manifest has two rules: bank.example with all one label below, and
// shop.example.
func manifest(t testing.TB) *policy.Manifest {
	t.Helper()
	return policytest.New(t, policytest.With(func(m *policy.Manifest) {
		web := m.Workloads[0].Name
		m.Ingress = []policy.IngressRule{
			{Name: "bank", Hosts: []string{"bank.example", "*.bank.example"}, Backends: []policy.IngressBackend{{Workload: web, Mode: policy.ModeHTTP, Ports: []uint16{8080}}}},
			{Name: "shop", Hosts: []string{"shop.example"}, Backends: []policy.IngressBackend{{Workload: web, Mode: policy.ModeHTTP, Ports: []uint16{8080}}}},
		}
	})).Manifest
}

// services are Services of the namespaces d and e.
type services map[string]resolve.ServiceView

func (s services) Service(namespace, name string) (resolve.ServiceView, bool) {
	v, ok := s[namespace+"/"+name]
	return v, ok
}

func known() services {
	tcp := func(app string, numbers ...uint16) (v resolve.ServiceView) {
		for _, n := range numbers {
			v.Ports = append(v.Ports, resolve.PortView{Name: fmt.Sprintf("p%d", n), Protocol: resolve.TCP, Port: n, App: app})
		}
		return v
	}
	udp := tcp("", 80)
	udp.Ports[0].Protocol = resolve.UDP
	return services{
		"d/web": tcp("", 80, 81), "d/next": tcp("", 80), "d/grpc": tcp("kubernetes.io/h2c", 80), "d/tls": tcp("https", 443), "d/dns": udp,
		"d/out": {External: "api.example.com"}, "e/web": tcp("", 80),
	}
}

func world(t testing.TB) World {
	t.Helper()
	return World{Controller: Controller, HTTPS: 443, HTTP: 80, Addresses: []string{"192.0.2.1"}, Manifest: manifest(t), Service: known().Service}
}

// documents are the objects of a YAML text, for kubetest.
func documents(t testing.TB, text string) (all []kubetest.Object) {
	t.Helper()
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o map[string]any
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		if o == nil {
			continue
		}
		raw, err := json.Marshal(o)
		must(t, err)
		var plain kubetest.Object
		must(t, json.Unmarshal(raw, &plain))
		all = append(all, plain)
	}
}

// objects decodes a YAML text as the API server's JSON would be.
func objects(t testing.TB, text string) *Objects {
	t.Helper()
	o := &Objects{}
	for _, doc := range documents(t, text) {
		raw, err := json.Marshal(doc)
		must(t, err)
		must(t, o.add(fmt.Sprint(doc["kind"]), raw))
	}
	return o
}

// add decodes one object.
func (o *Objects) add(kind string, raw []byte) error {
	switch kind {
	case "IngressClass":
		return decoded(raw, &o.IngressClasses)
	case "Ingress":
		return decoded(raw, &o.Ingresses)
	case "GatewayClass":
		return decoded(raw, &o.GatewayClasses)
	case "Gateway":
		return decoded(raw, &o.Gateways)
	case "HTTPRoute":
		return decoded(raw, &o.HTTPRoutes)
	case "GRPCRoute":
		return decoded(raw, &o.GRPCRoutes)
	case "ReferenceGrant":
		return decoded(raw, &o.Grants)
	case "Namespace":
		return decoded(raw, &o.Namespaces)
	}
	return fmt.Errorf("no such kind: %q", kind)
}

func decoded[T any](raw []byte, to *[]*T) error {
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		return err
	}
	*to = append(*to, v)
	return nil
}

// base is a class and a Gateway with a listener for everything.
const base = `
kind: GatewayClass
metadata: {name: c8s}
spec: {controllerName: c8s.dev/ingress}
---
kind: Gateway
metadata: {namespace: d, name: gw}
spec:
  gatewayClassName: c8s
  listeners:
    - {name: https, port: 443, protocol: HTTPS}
---
`

// routes spells a table: for each host and path where it leads.
func routes(c *route.Config) (out []string) {
	for _, r := range c.Routes {
		for _, host := range r.Hosts {
			for _, rule := range r.Rules {
				to := []string{}
				for _, b := range rule.Backends {
					s := fmt.Sprintf("%s:%s", b.Service, b.Port)
					if b.Protocol == route.H2C {
						s += " h2c"
					}
					if b.Refuse != "" {
						s = "refused"
					}
					to = append(to, s)
				}
				if rule.Redirect != nil {
					to = append(to, "redirect")
				}
				matches := rule.Matches
				if len(matches) == 0 {
					matches = []route.Match{{}}
				}
				for _, m := range matches {
					at := ""
					if m.Path != nil {
						at = map[route.PathKind]string{route.Exact: "=", route.Prefix: ""}[m.Path.Kind] + m.Path.Value
					}
					if m.GRPC != nil {
						at = m.GRPC.Service + "/" + m.GRPC.Method
					}
					out = append(out, host+at+" -> "+strings.Join(to, "+"))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// said finds a condition of a route, or "" if there is none: status, reason,
// message.
func said(all []gateway.RouteParentStatus, kind string) string {
	for _, p := range all {
		for _, c := range p.Conditions {
			if c.Type == kind {
				return fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
			}
		}
	}
	return ""
}

// parents are what the only route's status becomes.
func parentsOf(t testing.TB, r *Result, w *World) []gateway.RouteParentStatus {
	t.Helper()
	if len(r.attached) != 1 {
		t.Fatalf("%d routes are attached, want one", len(r.attached))
	}
	return r.attached[0].status(&conditions{}, w)
}
