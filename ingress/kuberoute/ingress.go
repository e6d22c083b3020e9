// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/ingress/route"
)

// Annotations of Ingresses and their classes (Kubernetes' own).
const (
	defaultClass = "ingressclass.kubernetes.io/is-default-class"
	oldClass     = "kubernetes.io/ingress.class"
)

// Limits of one Ingress: the API has none.
const (
	maxIngressRules = 256
	maxIngressPaths = 128 // of a rule: as many as the table takes rules of a route
)

// ingress is an Ingress of ours.
type ingress struct {
	object   *Ingress
	pieces   []*piece
	backends *backends
	own      []Finding
	lately   []Finding
}

// ingressObjects finds the Ingresses of our classes.
func (b *build) ingressObjects() {
	ours := map[string]bool{}
	byDefault := false
	for _, c := range b.objects.IngressClasses {
		if c.Spec.Controller == b.w.Controller && (b.w.IngressClass == "" || c.Name == b.w.IngressClass) {
			ours[c.Name] = true
			byDefault = byDefault || c.Annotations[defaultClass] == "true"
		}
	}
	for _, i := range b.objects.Ingresses {
		class, old := value(i.Spec.Class), i.Annotations[oldClass]
		if ours[cmp.Or(class, old)] || class == "" && old == "" && byDefault {
			b.ingress(i)
		}
	}
}

func (b *build) ingress(o *Ingress) {
	out := &ingress{object: o, backends: &backends{w: b.w, namespace: o.Namespace, kind: "Ingress", grants: b.grants}}
	name := "Ingress " + o.Namespace + "/" + o.Name
	for n, r := range o.Spec.Rules {
		if n == maxIngressRules {
			out.find("TooManyRules", "only the first %d of %d rules are used", maxIngressRules, len(o.Spec.Rules))
			break
		}
		if r.HTTP == nil || len(r.HTTP.Paths) == 0 {
			continue // all requests for the host go to the default backend
		}
		// Rules of one object may name a host twice: each piece has a name of its own.
		p := &piece{hosts: []pattern{{host: r.Host, label: true}}, route: route.Route{Source: fmt.Sprintf("%s rules[%d]", name, n), Since: since(o)}}
		for k := range r.HTTP.Paths {
			if k == maxIngressPaths {
				out.find("TooManyPaths", "only the first %d of %d paths of rules[%d] are used", maxIngressPaths, len(r.HTTP.Paths), n)
				break
			}
			if rule, ok := out.rule(&r.HTTP.Paths[k]); ok {
				p.route.Rules = append(p.route.Rules, rule)
			}
		}
		out.add(b, p)
	}
	if d := o.Spec.Default; d != nil {
		// What nothing else matches: of equal matches the oldest wins, and this is
		// younger than all.
		last := time.Unix(1<<40, 0)
		out.add(b, &piece{last: true, hosts: []pattern{{label: true}}, route: route.Route{
			Source: name + " defaultBackend", Since: last, Rules: []route.Rule{{Backends: []route.Backend{out.backend(d)}}},
		}})
	}
	b.result.ingresses = append(b.result.ingresses, out)
}

func (i *ingress) add(b *build, p *piece) {
	if len(p.route.Rules) == 0 {
		return
	}
	i.pieces = append(i.pieces, p)
	b.pieces = append(b.pieces, p)
	forbidden, failed := lately(b.w, p.route.Rules)
	for _, f := range append(forbidden, failed...) {
		if !slices.Contains(i.lately, f) {
			i.lately = append(i.lately, f)
		}
	}
}

func (i *ingress) find(reason, format string, args ...any) {
	i.own = append(i.own, Finding{reason, fmt.Sprintf(format, args...)})
}

// rule is one path. ok: requests can have it at all.
func (i *ingress) rule(in *IngressPath) (out route.Rule, ok bool) {
	path := &route.Path{Kind: route.Prefix, Value: cmp.Or(in.Path, "/")}
	switch in.PathType {
	case "Exact":
		path.Kind = route.Exact
	case "Prefix", "ImplementationSpecific", "":
	default:
		i.find("UnsupportedValue", "pathType %s is not known: its path is not used", short(in.PathType))
		return out, false
	}
	return route.Rule{Matches: []route.Match{{Path: path}}, Backends: []route.Backend{i.backend(&in.Backend)}}, true
}

func (i *ingress) backend(in *IngressBackend) route.Backend {
	out := route.Backend{Weight: 1, Protocol: route.HTTP}
	s := in.Service
	if s == nil {
		i.backends.refuse(&out, gateway.RouteReasonInvalidKind, "a backend is a Service, nothing else")
		return out
	}
	port := route.Port{Name: s.Port.Name}
	if port.Name == "" {
		port.Number = portNumber(s.Port.Number)
	}
	i.backends.service(&out, i.object.Namespace, s.Name, port)
	return out
}

// findings are all that its owner should know.
func (i *ingress) findings() []Finding {
	out := append([]Finding{}, i.own...)
	for _, p := range i.pieces {
		for _, d := range p.refused {
			out = append(out, Finding{camel(string(d.Code)), "host " + short(p.hosts[0].host) + ": " + d.Error()})
		}
		for _, problem := range p.problems {
			out = append(out, Finding{string(gateway.RouteReasonUnsupportedValue), p.route.Source + ": " + problem.String()})
		}
		if p.full {
			out = append(out, Finding{"TableFull", p.route.Source + ": the table of routes is full"})
		}
	}
	out = append(append(out, i.backends.findings...), i.lately...)
	for k := range out {
		out[k].Message = cut(out[k].Message, maxMessage)
	}
	return out[:min(len(out), maxFindings)]
}

// readsSecret reports whether the object names a Secret with a TLS key.
func (i *ingress) readsSecret() bool {
	for _, t := range i.object.Spec.TLS {
		if t.SecretName != "" {
			return true
		}
	}
	return false
}

const maxFindings = 20 // of one object
