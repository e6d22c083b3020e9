// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/ingress/route"
)

// Limits of one object (the API's own).
const (
	maxParents   = 32
	maxHostnames = 16
)

// object is what routes of all kinds have in common.
type object struct {
	kind    string
	meta    *metav1.ObjectMeta
	had     []gateway.RouteParentStatus // as others and we said before
	parents []gateway.ParentReference
	hosts   []gateway.Hostname
}

// attached is a route with at least one Gateway of ours.
type attached struct {
	object *object
	refs   []parent
	rules  *rules
	piece  *piece
	// What came of connecting to its pods.
	forbidden, failed []Finding
	cleared           bool // this ingress said one of these until lately
}

// parent is one reference to a Gateway of ours.
type parent struct {
	ref     gateway.ParentReference
	reason  gateway.RouteConditionReason // not accepted; "": it is
	message string
	plain   bool // only at listeners that answer by themselves
}

// attach finds the listeners of a route, and makes its piece.
func (b *build) attach(o *object, convert func(*backends) *rules) {
	out := &attached{object: o}
	var hosts []pattern
	for _, ref := range o.parents[:min(len(o.parents), maxParents)] {
		if g := b.gateOf(o, &ref); g != nil {
			p, patterns := b.parent(o, g, ref)
			out.refs = append(out.refs, p)
			hosts = append(hosts, patterns...)
		}
	}
	if len(out.refs) == 0 {
		return
	}
	out.rules = convert(&backends{w: b.w, namespace: o.meta.Namespace, kind: o.kind, grants: b.grants})
	if len(hosts) > 0 && len(out.rules.invalid) == 0 {
		slices.SortFunc(hosts, func(x, y pattern) int { return strings.Compare(x.host, y.host) })
		out.piece = &piece{
			hosts: slices.Compact(hosts),
			route: route.Route{Source: o.kind + " " + o.meta.Namespace + "/" + o.meta.Name, Since: since(o.meta), Rules: out.rules.list},
		}
		b.pieces = append(b.pieces, out.piece)
		out.forbidden, out.failed = lately(b.w, out.rules.list)
		out.cleared = slices.ContainsFunc(out.rules.list, func(r route.Rule) bool {
			return slices.ContainsFunc(r.Backends, func(to route.Backend) bool { return b.w.Cleared[to.Service] })
		})
	}
	b.result.attached = append(b.result.attached, out)
}

// gateOf is the Gateway of ours that a reference means; nil: it means none.
func (b *build) gateOf(o *object, ref *gateway.ParentReference) *gate {
	if ref.Group != nil && *ref.Group != gateway.GroupName || ref.Kind != nil && *ref.Kind != "Gateway" {
		return nil
	}
	namespace := o.meta.Namespace
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return b.gates[namespace+"/"+string(ref.Name)]
}

// parent looks for listeners that take the route, and the hosts that they have
// in common with it.
func (b *build) parent(o *object, g *gate, ref gateway.ParentReference) (parent, []pattern) {
	out := parent{ref: ref}
	refuse := func(reason gateway.RouteConditionReason, format string, args ...any) (parent, []pattern) {
		out.reason, out.message = reason, fmt.Sprintf(format, args...)
		return out, nil
	}
	var meant, taking []*listener
	for _, l := range g.listeners {
		if (ref.SectionName == nil || *ref.SectionName == l.spec.Name) && (ref.Port == nil || *ref.Port == l.spec.Port) && l.accepted() {
			meant = append(meant, l)
			if b.takes(g, l, o.kind, o.meta.Namespace) {
				taking = append(taking, l)
			}
		}
	}
	switch {
	case g.invalid != "" || len(meant) == 0:
		return refuse(gateway.RouteReasonNoMatchingParent, "the Gateway has no accepted listener that is meant")
	case len(taking) == 0:
		return refuse(gateway.RouteReasonNotAllowedByListeners, "allowedRoutes of the listeners do not let in a %s of namespace %s", o.kind, o.meta.Namespace)
	}
	var hosts []pattern
	fits := false
	for _, l := range taking {
		both := common(value(l.spec.Hostname), o.hosts[:min(len(o.hosts), maxHostnames)])
		if len(both) == 0 {
			continue
		}
		fits = true
		l.attached++
		if l.serves() {
			hosts = append(hosts, both...)
		}
	}
	if !fits {
		return refuse(gateway.RouteReasonNoMatchingListenerHostname, "none of the route's hostnames is one of a listener's")
	}
	out.plain = len(hosts) == 0
	return out, hosts
}

// wrong reports whether something of the route cannot be used.
func (a *attached) wrong() bool {
	if len(a.rules.invalid)+len(a.rules.partly)+len(a.rules.backends.findings)+len(a.forbidden)+len(a.failed) > 0 {
		return true
	}
	if a.piece != nil && (len(a.piece.refused)+len(a.piece.problems) > 0 || a.piece.full) {
		return true
	}
	return slices.ContainsFunc(a.refs, func(p parent) bool { return p.reason != "" })
}
