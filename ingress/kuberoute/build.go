// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// Controller is the name by which classes choose this ingress.
const Controller = "c8s.dev/ingress"

// World is what Build looks at besides the objects.
type World struct {
	Controller   string   // usually Controller
	IngressClass string   // the only class that is served; empty: all of the controller
	GatewayClass string   // the same for Gateways
	HTTPS, HTTP  uint16   // ports for clients; HTTP 0: none
	Addresses    []string // where clients go: addresses and names
	Manifest     *policy.Manifest
	Service      func(namespace, name string) (resolve.ServiceView, bool)
	Refused      map[string]policy.Decision // by Service, namespace/name: what the server heard when it tried
	Cleared      map[string]bool            // Services for which it heard so until lately
}

// Result is what the objects come to.
type Result struct {
	Routes   route.Config
	Problems int // objects of which something cannot be used

	classes   []*gateway.GatewayClass
	gates     []*gate
	attached  []*attached
	ingresses []*ingress
}

// build is one Build.
type build struct {
	w          *World
	objects    *Objects
	grants     grants
	below      map[string]bool // of the manifest's hosts
	namespaces map[string]labels.Set
	classes    map[string]bool // GatewayClasses that are served
	gates      map[string]*gate
	ordered    []*gate
	pieces     []*piece
	result     Result
}

// Build makes routes. It is pure: the same objects, in whatever order, come to
// the same. It sorts the slices of o.
func Build(o *Objects, w World) *Result {
	o.sort()
	b := &build{
		w: &w, objects: o, grants: grantsOf(o.Grants), below: parents(w.Manifest), namespaces: map[string]labels.Set{},
		classes: map[string]bool{}, gates: map[string]*gate{},
	}
	for _, n := range o.Namespaces {
		b.namespaces[n.Name] = n.Labels
	}
	b.gateways()
	for _, r := range o.HTTPRoutes {
		b.attach(&object{kind: "HTTPRoute", meta: &r.ObjectMeta, had: r.Status.Parents, parents: r.Spec.ParentRefs, hosts: r.Spec.Hostnames}, func(s *backends) *rules { return httpRules(r, s) })
	}
	for _, r := range o.GRPCRoutes {
		b.attach(&object{kind: "GRPCRoute", meta: &r.ObjectMeta, had: r.Status.Parents, parents: r.Spec.ParentRefs, hosts: r.Spec.Hostnames}, func(s *backends) *rules { return grpcRules(r, s) })
	}
	b.ingressObjects()
	assign(b.pieces, w.Manifest, b.below)
	b.finish()
	return &b.result
}

// finish takes what can be used.
func (b *build) finish() {
	for _, a := range b.result.attached {
		b.take(a.piece)
		if a.wrong() {
			b.result.Problems++
		}
	}
	for _, i := range b.result.ingresses {
		for _, p := range i.pieces {
			b.take(p)
		}
		if len(i.findings()) > 0 {
			b.result.Problems++
		}
	}
	b.result.gates = b.ordered
}

// take puts a piece into the table, if the table would have it.
func (b *build) take(p *piece) {
	if p == nil || len(p.route.Hosts) == 0 {
		return
	}
	if len(b.result.Routes.Routes) >= route.MaxRoutes {
		p.full = true
		return
	}
	if p.problems = p.route.Check(); len(p.problems) == 0 {
		b.result.Routes.Routes = append(b.result.Routes.Routes, p.route)
	}
}

// sort brings objects into an order that nobody else decides.
func (o *Objects) sort() {
	sortByAge(o.Gateways)
	sortByAge(o.GatewayClasses)
	sortByAge(o.HTTPRoutes)
	sortByAge(o.GRPCRoutes)
	sortByAge(o.Ingresses)
	sortByAge(o.IngressClasses)
	sortByAge(o.Grants)
}

func sortByAge[O metav1.Object](all []O) {
	slices.SortFunc(all, func(x, y O) int {
		return cmp.Or(since(x).Compare(since(y)), cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
	})
}

func since(o metav1.Object) time.Time { return o.GetCreationTimestamp().Time }
