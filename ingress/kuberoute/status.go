// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// ConditionManifest says whether the signed manifest allows what an object asks
// for: hosts as they are written, and workloads as they were found when requests
// came.
const ConditionManifest = "c8s.dev/ManifestAllows"

// ConditionReached is there, and false, while pods of the object's Services
// cannot be connected to for reasons other than the manifest.
const ConditionReached = "c8s.dev/BackendsReached"

// Reasons of ConditionManifest besides codes of refusals, which are spelled
// "IngressHostUnknown".
const (
	reasonAllowed    = "Allowed"
	reasonNotAllowed = "NotAllowedByManifest"
	hostReasons      = "IngressHost" // how reasons about hosts begin: these every ingress knows by itself
)

// Update is what an object's status should say.
type Update struct {
	Kind, Namespace, Name string
	UID, Version          string // of the object that it is about
	Status                any    // merged into what is there; nil: it is as it should be
	Findings              []Finding
}

// Updates says which objects should say something else about themselves.
// Findings of Ingresses, which have no conditions, are listed always.
func (r *Result) Updates(w *World, now time.Time) (out []Update) {
	c := conditions{now: metav1.NewTime(now.Truncate(time.Second))}
	for _, o := range r.classes {
		c.generation = o.Generation
		list := c.merge(o.Status.Conditions, c.of(string(gateway.GatewayClassConditionStatusAccepted), true, "Accepted", "the ingress serves Gateways of this class"))
		if !reflect.DeepEqual(list, o.Status.Conditions) {
			out = append(out, update("GatewayClass", &o.ObjectMeta, map[string]any{"conditions": list}))
		}
	}
	for _, g := range r.gates {
		had := &g.object.Status
		want := g.status(&c, w)
		if !reflect.DeepEqual(want.Addresses, had.Addresses) || !reflect.DeepEqual(want.Conditions, had.Conditions) || !reflect.DeepEqual(want.Listeners, had.Listeners) {
			out = append(out, update("Gateway", &g.object.ObjectMeta, map[string]any{"addresses": want.Addresses, "conditions": want.Conditions, "listeners": want.Listeners}))
		}
	}
	for _, a := range r.attached {
		if want := a.status(&c, w); !reflect.DeepEqual(want, a.object.had) {
			out = append(out, update(a.object.kind, a.object.meta, map[string]any{"parents": want}))
		}
	}
	for _, i := range r.ingresses {
		u := update("Ingress", &i.object.ObjectMeta, nil)
		u.Findings = i.findings()
		if i.readsSecret() {
			u.Findings = append(u.Findings, Finding{"SecretNotRead", tlsNote})
		}
		if want := ingressAddresses(w.Addresses); len(want) > 0 && !reflect.DeepEqual(want, i.object.Status.LoadBalancer.Ingress) {
			u.Status = map[string]any{"loadBalancer": IngressLoadBalancer{want}}
		}
		if u.Status != nil || len(u.Findings) > 0 {
			out = append(out, u)
		}
	}
	return out
}

func update(kind string, o *metav1.ObjectMeta, status any) Update {
	return Update{Kind: kind, Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), Version: o.ResourceVersion, Status: status}
}

// conditions makes conditions of objects of one generation.
type conditions struct {
	now        metav1.Time
	generation int64
}

func (c *conditions) of(kind string, holds bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: cut(message, 2*maxMessage), ObservedGeneration: c.generation, LastTransitionTime: c.now}
}

const maxConditions = 8 // of one object (the API's own limit)

// merge puts conditions into a list: those of others stay, and the time counts
// from when the status became what it is.
func (c *conditions) merge(had []metav1.Condition, want ...metav1.Condition) []metav1.Condition {
	out := slices.Clone(had)
	for _, n := range want {
		i := slices.IndexFunc(out, func(o metav1.Condition) bool { return o.Type == n.Type })
		switch {
		case i < 0 && len(out) < maxConditions:
			out = append(out, n)
		case i >= 0:
			if out[i].Status == n.Status {
				n.LastTransitionTime = out[i].LastTransitionTime
			}
			out[i] = n
		}
	}
	return out
}

func (g *gate) status(c *conditions, w *World) (out gateway.GatewayStatus) {
	c.generation = g.object.Generation
	good, serving := 0, 0
	for _, l := range g.listeners {
		i := slices.IndexFunc(g.object.Status.Listeners, func(s gateway.ListenerStatus) bool { return s.Name == l.spec.Name })
		var had []metav1.Condition
		if i >= 0 {
			had = g.object.Status.Listeners[i].Conditions
		}
		out.Listeners = append(out.Listeners, l.status(c, had, g.invalid))
		if l.accepted() && g.invalid == "" {
			good++
			if l.refused == "" {
				serving++
			}
		}
	}
	accepted := c.of("Accepted", true, string(gateway.GatewayReasonAccepted), "")
	switch {
	case g.invalid != "":
		accepted = c.of("Accepted", false, string(gateway.GatewayReasonInvalidParameters), g.invalid)
	case good < len(g.listeners):
		accepted = c.of("Accepted", good > 0, string(gateway.GatewayReasonListenersNotValid), fmt.Sprintf("%d of %d listeners are accepted", good, len(g.listeners)))
	}
	out.Addresses = gatewayAddresses(w.Addresses)
	programmed := c.of("Programmed", true, string(gateway.GatewayReasonProgrammed), "")
	switch foreign := foreignAddress(g.object.Spec.Addresses, w.Addresses); {
	case serving == 0:
		programmed = c.of("Programmed", false, string(gateway.GatewayReasonInvalid), "no listener can be used")
	case foreign != "":
		programmed = c.of("Programmed", false, string(gateway.GatewayReasonAddressNotUsable), "the ingress has no address "+short(foreign))
	case len(out.Addresses) == 0:
		programmed = c.of("Programmed", false, string(gateway.GatewayReasonAddressNotAssigned), "the ingress was not told at which address clients find it (--publish-address, or ingress.addresses of the chart)")
	}
	out.Conditions = c.merge(g.object.Status.Conditions, accepted, programmed)
	return out
}

func (l *listener) status(c *conditions, had []metav1.Condition, invalid string) gateway.ListenerStatus {
	out := gateway.ListenerStatus{Name: l.spec.Name, SupportedKinds: l.kinds, AttachedRoutes: l.attached}
	accepted := c.of("Accepted", true, string(gateway.ListenerReasonAccepted), "")
	if l.reason != "" {
		accepted = c.of("Accepted", false, string(l.reason), l.message)
	} else if !l.serves() {
		accepted.Message = "the ingress answers plain HTTP itself, and sends clients to HTTPS: routes take no effect here"
	}
	conflicted := c.of("Conflicted", false, string(gateway.ListenerReasonNoConflicts), "")
	if l.conflict != "" {
		conflicted = c.of("Conflicted", true, string(l.conflict), "another listener of the Gateway has the same port and hostname")
	}
	refs := c.of("ResolvedRefs", true, string(gateway.ListenerReasonResolvedRefs), "")
	switch {
	case l.badKinds:
		refs = c.of("ResolvedRefs", false, string(gateway.ListenerReasonInvalidRouteKinds), "allowedRoutes.kinds has kinds other than HTTPRoute and GRPCRoute")
	case l.spec.TLS != nil && len(l.spec.TLS.CertificateRefs) > 0:
		refs.Message = tlsNote
	}
	programmed := c.of("Programmed", true, string(gateway.ListenerReasonProgrammed), "")
	switch {
	case invalid != "" || !l.accepted():
		programmed = c.of("Programmed", false, string(gateway.ListenerReasonInvalid), "the listener is not accepted")
	case l.refused != "":
		programmed = c.of("Programmed", false, string(gateway.ListenerReasonInvalid), "the manifest has no such host")
	}
	manifest := c.of(ConditionManifest, true, reasonAllowed, "")
	if l.refused != "" {
		manifest = c.of(ConditionManifest, false, reasonNotAllowed, "hostname "+short(value(l.spec.Hostname))+": "+l.refused)
	}
	out.Conditions = c.merge(had, accepted, conflicted, refs, programmed, manifest)
	return out
}

// status is what the route says of all its parents: ours are made anew, those of
// other controllers stay.
func (a *attached) status(c *conditions, w *World) (out []gateway.RouteParentStatus) {
	c.generation = a.object.meta.Generation
	for _, p := range a.object.had {
		if string(p.ControllerName) != w.Controller {
			out = append(out, p)
		}
	}
	for i := range a.refs {
		p := &a.refs[i]
		var had []metav1.Condition
		for _, o := range a.object.had {
			if string(o.ControllerName) == w.Controller && reflect.DeepEqual(o.ParentRef, p.ref) {
				had = o.Conditions
			}
		}
		if len(out) == maxParents {
			break
		}
		list := c.merge(had, a.accepted(c, p), a.resolved(c), a.allowed(c, had))
		list = c.whileSo(list, string(gateway.RouteConditionPartiallyInvalid), true, a.rules.partly)
		if len(a.failed) > 0 || a.othersSay(c, had, ConditionReached) == nil {
			list = c.whileSo(list, ConditionReached, false, a.failed)
		}
		out = append(out, gateway.RouteParentStatus{ParentRef: p.ref, ControllerName: gateway.GatewayController(w.Controller), Conditions: list})
	}
	return out
}

func (a *attached) accepted(c *conditions, p *parent) metav1.Condition {
	const kind = "Accepted"
	switch {
	case p.reason != "":
		return c.of(kind, false, string(p.reason), p.message)
	case len(a.rules.invalid) > 0:
		return c.of(kind, false, a.rules.invalid[0].Reason, messages(a.rules.invalid))
	case a.piece != nil && len(a.piece.problems) > 0:
		return c.of(kind, false, string(gateway.RouteReasonUnsupportedValue), a.piece.problems[0].String())
	case a.piece != nil && a.piece.full:
		return c.of(kind, false, "TableFull", "the table of routes is full")
	case a.piece != nil && len(a.piece.refused) > 0 && len(a.piece.refused) == len(a.piece.hosts):
		return c.of(kind, false, reasonNotAllowed, "the manifest has none of the route's hosts: see condition "+ConditionManifest)
	}
	var notes []string
	if p.plain {
		notes = append(notes, "it takes no effect: its listeners are for plain HTTP, which the ingress answers itself")
	} else if a.piece != nil && len(a.piece.route.Hosts) == 0 {
		notes = append(notes, "it gets no requests: more specific routes have all of its hosts")
	}
	if n := len(a.rules.ignored); n > 0 {
		notes = append(notes, "not supported, and ignored: "+strings.Join(slices.Compact(slices.Sorted(slices.Values(a.rules.ignored))), ", "))
	}
	return c.of(kind, true, string(gateway.RouteReasonAccepted), strings.Join(notes, "; "))
}

func (a *attached) resolved(c *conditions) metav1.Condition {
	if all := a.rules.backends.findings; len(all) > 0 {
		return c.of("ResolvedRefs", false, all[0].Reason, messages(all))
	}
	return c.of("ResolvedRefs", true, string(gateway.RouteReasonResolvedRefs), "")
}

// allowed says what the manifest says. Why a workload is not allowed for a host
// is known once a request asked for it.
func (a *attached) allowed(c *conditions, had []metav1.Condition) metav1.Condition {
	var all []Finding
	if a.piece != nil {
		for _, d := range a.piece.refused {
			all = append(all, Finding{camel(string(d.Code)), d.Error()})
		}
	}
	if a.piece != nil && len(a.piece.route.Hosts) > 0 { // else they are other routes' requests
		all = append(all, a.forbidden...)
	}
	if len(all) > 0 {
		return c.of(ConditionManifest, false, all[0].Reason, messages(all))
	}
	if other := a.othersSay(c, had, ConditionManifest); other != nil && !strings.HasPrefix(other.Reason, hostReasons) {
		return *other
	}
	return c.of(ConditionManifest, true, reasonAllowed, "the manifest has the hosts; which workload answers is judged with each connection")
}

// othersSay is what another ingress of the controller said lately of the
// object's pods; nil: nothing. One that heard no refusal leaves it alone: two
// that take turns in writing would never end.
func (a *attached) othersSay(c *conditions, had []metav1.Condition, kind string) *metav1.Condition {
	i := slices.IndexFunc(had, func(o metav1.Condition) bool { return o.Type == kind && o.Status == metav1.ConditionFalse })
	if i < 0 || a.cleared || had[i].ObservedGeneration != c.generation || c.now.Sub(had[i].LastTransitionTime.Time) > forgetTime {
		return nil
	}
	return &had[i]
}

// whileSo adds a condition that is there only while something was found.
func (c *conditions) whileSo(list []metav1.Condition, kind string, holds bool, all []Finding) []metav1.Condition {
	if len(all) > 0 {
		return c.merge(list, c.of(kind, holds, all[0].Reason, messages(all)))
	}
	return slices.DeleteFunc(list, func(o metav1.Condition) bool { return o.Type == kind })
}

func gatewayAddresses(all []string) (out []gateway.GatewayStatusAddress) {
	for _, a := range all {
		kind := gateway.HostnameAddressType
		if _, err := netip.ParseAddr(a); err == nil {
			kind = gateway.IPAddressType
		}
		out = append(out, gateway.GatewayStatusAddress{Type: &kind, Value: a})
	}
	return out
}

func ingressAddresses(all []string) (out []IngressAddress) {
	for _, a := range all {
		if _, err := netip.ParseAddr(a); err == nil {
			out = append(out, IngressAddress{IP: a})
		} else {
			out = append(out, IngressAddress{Hostname: a})
		}
	}
	return out
}

// foreignAddress is an address that was asked for and is not ours.
func foreignAddress(asked []gateway.GatewaySpecAddress, ours []string) string {
	for _, a := range asked {
		if a.Value != "" && !slices.Contains(ours, a.Value) {
			return a.Value
		}
	}
	return ""
}
