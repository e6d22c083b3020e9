// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// tlsNote is said wherever an object names a Secret with a TLS key.
const tlsNote = "the Secrets named for TLS are not read: the TLS key is born in the ingress's TEE and never leaves it"

// gate is a Gateway of ours.
type gate struct {
	object    *gateway.Gateway
	listeners []*listener
	invalid   string // the whole Gateway is not accepted
}

type listener struct {
	spec     *gateway.Listener
	reason   gateway.ListenerConditionReason // not accepted; "": it is
	message  string
	conflict gateway.ListenerConditionReason
	kinds    []gateway.RouteGroupKind // of routes it takes
	badKinds bool
	selector labels.Selector
	refused  string // why the manifest has no such host
	attached int32
}

// serves reports whether routes of the listener get requests: those of a plain
// one do not, because the ingress answers there itself.
func (l *listener) serves() bool { return l.spec.Protocol == gateway.HTTPSProtocolType }

func (l *listener) accepted() bool { return l.reason == "" && l.conflict == "" }

// gateways finds the Gateways of our classes.
func (b *build) gateways() {
	for _, c := range b.objects.GatewayClasses {
		if string(c.Spec.ControllerName) != b.w.Controller || b.w.GatewayClass != "" && c.Name != b.w.GatewayClass {
			continue
		}
		b.classes[c.Name] = true
		b.result.classes = append(b.result.classes, c)
	}
	for _, g := range b.objects.Gateways {
		if !b.classes[string(g.Spec.GatewayClassName)] {
			continue
		}
		out := &gate{object: g}
		if p := g.Spec.Infrastructure; p != nil && p.ParametersRef != nil {
			out.invalid = "infrastructure.parametersRef is not supported"
		}
		if t := g.Spec.TLS; t != nil && t.Frontend != nil {
			out.invalid = "tls.frontend is not supported: client certificates are not asked for"
		}
		for i := range g.Spec.Listeners {
			out.listeners = append(out.listeners, b.listener(&g.Spec.Listeners[i]))
		}
		conflicts(out.listeners)
		b.gates[g.Namespace+"/"+g.Name] = out
		b.ordered = append(b.ordered, out)
	}
}

func (b *build) listener(in *gateway.Listener) *listener {
	out := &listener{spec: in, selector: labels.Nothing()}
	refuse := func(reason gateway.ListenerConditionReason, format string, args ...any) {
		out.reason, out.message = reason, fmt.Sprintf(format, args...)
	}
	switch port := portNumber(in.Port); {
	case in.Protocol != gateway.HTTPProtocolType && in.Protocol != gateway.HTTPSProtocolType:
		refuse(gateway.ListenerReasonUnsupportedProtocol, "the ingress has listeners of protocol HTTP and HTTPS, not %s", short(string(in.Protocol)))
	case in.Protocol == gateway.HTTPSProtocolType && port != b.w.HTTPS:
		refuse(gateway.ListenerReasonPortUnavailable, "the ingress serves HTTPS on port %d, not %d", b.w.HTTPS, in.Port)
	case in.Protocol == gateway.HTTPProtocolType && (port != b.w.HTTP || port == 0):
		refuse(gateway.ListenerReasonPortUnavailable, "the ingress serves plain HTTP on port %d (0: not at all), not %d", b.w.HTTP, in.Port)
	case in.TLS != nil && in.TLS.Mode != nil && *in.TLS.Mode != gateway.TLSModeTerminate:
		refuse(gateway.ListenerReasonUnsupportedValue, "TLS ends in the ingress, whose key it proves: mode %s is not supported", short(value(in.TLS.Mode)))
	}
	out.kinds, out.badKinds = routeKinds(in.AllowedRoutes)
	if in.AllowedRoutes != nil && in.AllowedRoutes.Namespaces != nil && in.AllowedRoutes.Namespaces.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(in.AllowedRoutes.Namespaces.Selector)
		if err != nil {
			refuse(gateway.ListenerReasonUnsupportedValue, "allowedRoutes.namespaces.selector is no selector")
		} else {
			out.selector = s
		}
	}
	if host := value(in.Hostname); host != "" {
		p := &piece{hosts: []pattern{{host: host}}}
		if p.judge(b.w.Manifest, b.below); len(p.refused) > 0 {
			out.refused = p.refused[0].Error()
		}
	}
	return out
}

// conflicts finds listeners that cannot be told apart: none of them is used. Of
// two protocols on one port, one is refused anyway.
func conflicts(all []*listener) {
	type place struct {
		port int32
		host string
	}
	seen := map[place]int{}
	for _, l := range all {
		seen[place{l.spec.Port, value(l.spec.Hostname)}]++
	}
	for _, l := range all {
		if seen[place{l.spec.Port, value(l.spec.Hostname)}] > 1 {
			l.conflict = gateway.ListenerReasonHostnameConflict
		}
	}
}

// routeKinds are the kinds of routes that a listener takes; bad: it also asks
// for others.
func routeKinds(allowed *gateway.AllowedRoutes) (kinds []gateway.RouteGroupKind, bad bool) {
	group := gateway.Group(gateway.GroupName)
	ours := []gateway.RouteGroupKind{{Group: &group, Kind: "HTTPRoute"}, {Group: &group, Kind: "GRPCRoute"}}
	if allowed == nil || len(allowed.Kinds) == 0 {
		return ours, false
	}
	kinds = []gateway.RouteGroupKind{}
	for _, k := range allowed.Kinds {
		i := slices.IndexFunc(ours, func(o gateway.RouteGroupKind) bool {
			return o.Kind == k.Kind && (k.Group == nil || string(*k.Group) == gateway.GroupName)
		})
		if i < 0 {
			bad = true
		} else if !slices.ContainsFunc(kinds, func(o gateway.RouteGroupKind) bool { return o.Kind == k.Kind }) {
			kinds = append(kinds, ours[i])
		}
	}
	return kinds, bad
}

// takes reports whether a listener takes routes of a kind from a namespace.
func (b *build) takes(g *gate, l *listener, kind, namespace string) bool {
	if !slices.ContainsFunc(l.kinds, func(k gateway.RouteGroupKind) bool { return string(k.Kind) == kind }) {
		return false
	}
	from := string(gateway.NamespacesFromSame)
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil && a.Namespaces.From != nil {
		from = string(*a.Namespaces.From)
	}
	switch gateway.FromNamespaces(from) {
	case gateway.NamespacesFromAll:
		return true
	case gateway.NamespacesFromSame:
		return namespace == g.object.Namespace
	case gateway.NamespacesFromSelector:
		set, known := b.namespaces[namespace]
		return known && l.selector.Matches(set)
	}
	return false
}

// common are the hosts that both a listener and a route are for. Wildcards
// stand for any number of labels here.
func common(listener string, hosts []gateway.Hostname) (out []pattern) {
	if len(hosts) == 0 {
		return []pattern{{host: listener}}
	}
	for _, h := range hosts {
		host := string(h)
		switch {
		case listener == "" || host == listener || within(host, listener):
			out = append(out, pattern{host: host})
		case within(listener, host):
			out = append(out, pattern{host: listener})
		}
	}
	return out
}

// within reports whether everything that inner names is under the wildcard outer.
func within(inner, outer string) bool {
	parent, wild := strings.CutPrefix(outer, "*")
	return wild && parent != "" && len(inner) > len(parent) && strings.HasSuffix(inner, parent)
}
