// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"slices"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
)

// Finding is something wrong that the owner of an object should know.
type Finding struct {
	Reason  string // as reasons of conditions are spelled: "BackendNotFound"
	Message string
}

// backends turns references of one object into backends, and collects what is
// wrong with them.
type backends struct {
	w         *World
	namespace string // of the object
	kind      string // of the object, for ReferenceGrants
	grants    grants
	findings  []Finding
}

// of is a backend of the Gateway API. One that cannot be used takes its share of
// requests all the same, and refuses them.
func (b *backends) of(ref *gateway.BackendRef, protocol route.Protocol) route.Backend {
	out := route.Backend{Weight: 1, Protocol: protocol}
	if ref.Weight != nil {
		out.Weight = uint32(max(*ref.Weight, 0))
	}
	namespace := b.namespace
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	switch {
	case value(ref.Group) != "" || ref.Kind != nil && *ref.Kind != "Service":
		b.refuse(&out, gateway.RouteReasonInvalidKind, fmt.Sprintf("a backend is a Service of the core group, not %s %s", short(value(ref.Group)), short(value(ref.Kind))))
	case namespace != b.namespace && !b.grants.allow(gateway.GroupName, b.kind, b.namespace, namespace, string(ref.Name)):
		b.refuse(&out, gateway.RouteReasonRefNotPermitted, fmt.Sprintf("Service %s is in another namespace, and no ReferenceGrant there lets a %s of namespace %s refer to it", short(namespace+"/"+string(ref.Name)), b.kind, b.namespace))
	case ref.Port == nil:
		b.refuse(&out, gateway.RouteReasonUnsupportedValue, fmt.Sprintf("the reference to Service %s names no port", short(string(ref.Name))))
	default:
		b.service(&out, namespace, string(ref.Name), route.Port{Number: portNumber(*ref.Port)})
	}
	return out
}

// service checks that the Service has the port, and takes from it what its pods
// speak.
func (b *backends) service(out *route.Backend, namespace, name string, port route.Port) {
	key := namespace + "/" + name
	out.Service, out.Port = key, port
	view, ok := b.w.Service(namespace, name)
	if !ok {
		b.refuse(out, gateway.RouteReasonBackendNotFound, fmt.Sprintf("there is no Service %s", short(key)))
		return
	}
	if view.External != "" {
		b.refuse(out, gateway.RouteReasonInvalidKind, fmt.Sprintf("Service %s is of type ExternalName: nothing outside the mesh can be a backend", short(key)))
		return
	}
	i := slices.IndexFunc(view.Ports, func(p resolve.PortView) bool {
		return p.Protocol == resolve.TCP && (port.Name != "" && p.Name == port.Name || port.Name == "" && p.Port == port.Number && p.Port > 0)
	})
	if i < 0 {
		b.refuse(out, gateway.RouteReasonBackendNotFound, fmt.Sprintf("Service %s has no TCP port %s", short(key), short(port.String())))
		return
	}
	switch app := view.Ports[i].App; app {
	case "kubernetes.io/h2c", "grpc":
		out.Protocol = route.H2C
	case "https", "tls", "kubernetes.io/wss":
		b.refuse(out, gateway.RouteReasonUnsupportedProtocol, fmt.Sprintf("port %s of Service %s says that it speaks %s: pods speak without TLS, the mesh encrypts", short(port.String()), short(key), app))
	}
}

func (b *backends) refuse(out *route.Backend, reason gateway.RouteConditionReason, message string) {
	out.Refuse = message
	b.findings = append(b.findings, Finding{string(reason), message})
}

// lately is what came of connecting to the backends of these rules, once for
// each Service: what the manifest forbids, and what failed otherwise.
func lately(w *World, rules []route.Rule) (forbidden, failed []Finding) {
	seen := map[string]bool{}
	for i := range rules {
		for j := range rules[i].Backends {
			service := rules[i].Backends[j].Service
			if seen[service] || rules[i].Backends[j].Refuse != "" {
				continue
			}
			seen[service] = true
			d, ok := w.Refused[service]
			if !ok {
				continue
			}
			f := Finding{camel(string(d.Code)), cut("Service "+service+": "+d.Error(), maxMessage)}
			if ofManifest(&d) {
				forbidden = append(forbidden, f)
			} else {
				failed = append(failed, f)
			}
		}
	}
	return forbidden, failed
}

// grants are the ReferenceGrants by the namespace that they are for.
type grants map[string][]*gateway.ReferenceGrant

func grantsOf(all []*gateway.ReferenceGrant) grants {
	out := grants{}
	for _, g := range all {
		out[g.Namespace] = append(out[g.Namespace], g)
	}
	return out
}

// allow reports whether a Service in another namespace may be referred to.
func (g grants) allow(group, kind, from, to, service string) bool {
	for _, grant := range g[to] {
		if slices.ContainsFunc(grant.Spec.From, func(f gateway.ReferenceGrantFrom) bool {
			return string(f.Group) == group && string(f.Kind) == kind && string(f.Namespace) == from
		}) && slices.ContainsFunc(grant.Spec.To, func(t gateway.ReferenceGrantTo) bool {
			return t.Group == "" && t.Kind == "Service" && (t.Name == nil || *t.Name == "" || string(*t.Name) == service)
		}) {
			return true
		}
	}
	return false
}

func portNumber(n int32) uint16 {
	if n < 0 || n > 65535 {
		return 0
	}
	return uint16(n)
}

func value[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}
