// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// many has n routes for all hosts.
func many(t testing.TB, n int) *Objects {
	o := objects(t, base)
	port := gateway.PortNumber(80)
	for i := range n {
		o.HTTPRoutes = append(o.HTTPRoutes, &gateway.HTTPRoute{
			ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprintf("r%06d", i)},
			Spec: gateway.HTTPRouteSpec{
				CommonRouteSpec: gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{{Name: "gw"}}},
				Rules: []gateway.HTTPRouteRule{{BackendRefs: []gateway.HTTPBackendRef{{BackendRef: gateway.BackendRef{
					BackendObjectReference: gateway.BackendObjectReference{Name: "web", Port: &port},
				}}}}},
			},
		})
	}
	return o
}

// As many routes as there can be, each for all hosts: the table is full, which
// the routes without a place say, and the same ones have a place each time.
func TestTablesAreBounded(t *testing.T) {
	w := world(t)
	w.Manifest = policytest.New(t, policytest.With(func(m *policy.Manifest) {
		rule := policy.IngressRule{Name: "all", Backends: []policy.IngressBackend{{Workload: m.Workloads[0].Name, Mode: policy.ModeHTTP, Ports: []uint16{80}}}}
		for i := range 40 {
			rule.Hosts = append(rule.Hosts, fmt.Sprintf("h%02d.example", i))
		}
		m.Ingress = []policy.IngressRule{rule}
	})).Manifest
	o := many(t, 3000)
	r := Build(o, w)
	first := signature(&r.Routes)
	named := 0
	for i := range r.Routes.Routes {
		named += len(r.Routes.Routes[i].Hosts)
	}
	if named != route.MaxHosts {
		t.Errorf("%d host names in the table, want %d", named, route.MaxHosts)
	}
	slices.Reverse(o.HTTPRoutes)
	if again := Build(o, w); signature(&again.Routes) != first {
		t.Error("another order, another table")
	}
	if _, err := route.New(r.Routes); err != nil {
		t.Error(err)
	}
}

func BenchmarkBuild(b *testing.B) {
	w := world(b)
	o := many(b, 5000)
	for b.Loop() {
		r := Build(o, w)
		r.Updates(&w, epoch)
	}
}

func notAllowed(code policy.Code, rule string) error {
	return fmt.Errorf("connecting: %w", &datapath.Refusal{Decision: policy.Decision{Code: code, Rule: rule}})
}

func TestRefusalsAreBoundedAndNotRepeated(t *testing.T) {
	now := epoch
	w := newTried(func() time.Time { return now })
	for i := range maxTried + 10 {
		w.tell(fmt.Sprintf("d/s%d", i), notAllowed(policy.CodeIngressWorkload, "x"))
	}
	all, _, changes := w.refused()
	if len(all) != maxTried {
		t.Errorf("%d are remembered", len(all))
	}
	w.tell("d/s0", notAllowed(policy.CodeIngressWorkload, "x"))
	w.tell("d/never", nil)
	w.tell("d/never", errors.New("another kind of error"))
	w.tell("d/never", notAllowed("shutdown", ""))
	if w.changed() != changes {
		t.Error("what is known already, or says nothing about a pod, makes another table")
	}
}

// A Service that works for one host and not for another does not have its
// statuses written all day.
func TestRefusalsStandForAWhile(t *testing.T) {
	now := epoch
	w := newTried(func() time.Time { return now })
	stands := func() bool { all, _, _ := w.refused(); return len(all) > 0 }
	w.tell("d/web", notAllowed(policy.CodeIngressWorkload, "x"))
	first := w.changed()
	for range 10 {
		now = now.Add(20 * time.Second)
		w.tell("d/web", nil)
		w.tell("d/web", notAllowed(policy.CodeIngressWorkload, "x"))
	}
	if !stands() || w.changed() != first {
		t.Error("a refusal that goes on was forgotten in between")
	}
	w.tell("d/web", nil)
	now = now.Add(standsFor + time.Second)
	if stands() {
		t.Error("it works, and the refusal stands")
	}
	w.tell("d/web", notAllowed(policy.CodeIngressWorkload, "x"))
	now = now.Add(forgetTime)
	if !stands() {
		t.Error("nothing came after the refusal, and it was forgotten at once")
	}
	now = now.Add(time.Second)
	if stands() {
		t.Error("nobody asks any more, and the refusal stands")
	}
}

func TestEventsAreBoundedAndNotRepeated(t *testing.T) {
	now := epoch
	w := &writer{now: func() time.Time { return now }, events: map[string]time.Time{}}
	for i := range maxEvents {
		w.events[fmt.Sprint(i)] = now
	}
	f := Finding{"A", "b"} // no client: writing would panic
	if err := w.event(t.Context(), &Update{}, "k", f); err != nil || len(w.events) != maxEvents {
		t.Errorf("%d remembered, %v", len(w.events), err)
	}
	w.events = map[string]time.Time{"k A b": now}
	if err := w.event(t.Context(), &Update{}, "k", f); err != nil {
		t.Error(err)
	}
}

func TestResolverFindsEndpointsAndSaysWhyNot(t *testing.T) {
	table, err := resolve.New(resolve.Config{Node: netip.MustParseAddr("10.80.0.1"), Rand: func() uint64 { return 7 }, Now: func() time.Time { return epoch }})
	must(t, err)
	vip := func(name, a string, endpoints ...string) resolve.Service {
		s := resolve.Service{Name: name, VIPs: []netip.Addr{netip.MustParseAddr(a)}, Ports: []resolve.Port{{Name: "http", Protocol: resolve.TCP, Port: 80}}}
		for _, e := range endpoints {
			s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, resolve.Endpoint{Addr: netip.MustParseAddrPort(e)})
		}
		return s
	}
	table.SetCluster(resolve.Cluster{
		Nodes: []resolve.Node{{Name: "b", Addr: netip.MustParseAddr("10.80.0.2"), Pods: []netip.Prefix{netip.MustParsePrefix("10.81.2.0/24")}}},
		Services: []resolve.Service{
			vip("d/web", "10.96.0.1", "10.81.2.2:8080"), vip("d/none", "10.96.0.2"), vip("d/host", "10.96.0.3", "10.80.0.2:6443"),
		},
	})
	find := Resolver(table)
	got, err := find("d/web", route.Port{Name: "http"}, nil)
	if err != nil || got.Pod != netip.MustParseAddrPort("10.81.2.2:8080") || got.Node != netip.MustParseAddr("10.80.0.2") || got.Service != "d/web" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct {
		service string
		port    uint16
		want    string
	}{
		{"d/web", 81, "no-service-port"}, {"d/nobody", 80, "no-route"}, {"nobody", 80, "no-route"}, {"d/none", 80, "no-endpoints"}, {"d/host", 80, "host-address"},
	} {
		if _, err := find(tt.service, route.Port{Number: tt.port}, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s port %d: %v, want %s", tt.service, tt.port, err, tt.want)
		}
	}
	if _, err := find("d/web", route.Port{Number: 80}, []netip.Addr{netip.MustParseAddr("10.81.2.2")}); err == nil {
		t.Error("an endpoint that is to be avoided was found")
	}
}
