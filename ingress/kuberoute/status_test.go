// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/c8s-dev/c8s/policy"
)

// gatewayStatus spells what a Gateway with these listeners says.
func gatewayStatus(t *testing.T, w World, spec string) (lines []string) {
	t.Helper()
	text := strings.Replace(base, "  listeners:\n    - {name: https, port: 443, protocol: HTTPS}\n", indent(spec), 1)
	r := Build(objects(t, text+one("hostnames: [bank.example]\n"+toWeb)), w)
	s := r.gates[0].status(&conditions{}, &w)
	for _, c := range s.Conditions {
		lines = append(lines, fmt.Sprintf("%s %s %s", c.Type, c.Status, c.Reason))
	}
	for _, l := range s.Listeners {
		line := fmt.Sprintf("%s %d", l.Name, l.AttachedRoutes)
		for _, c := range l.Conditions {
			if usual := c.Type != "Conflicted"; (c.Status == "True") != usual {
				line += fmt.Sprintf(" %s=%s", c.Type, c.Reason)
			}
			if strings.Contains(c.Message, "Secrets") {
				line += " secrets"
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func TestGatewaysSayWhatIsWrong(t *testing.T) {
	good := []string{"Accepted True Accepted", "Programmed True Programmed"}
	for _, tt := range []struct {
		name, spec string
		edit       func(*World)
		want       []string
	}{
		{name: "all well", spec: "listeners: [{name: a, port: 443, protocol: HTTPS}, {name: b, port: 80, protocol: HTTP}]", want: append(good[:2:2], "a 1", "b 1")},
		{name: "Secrets", spec: "listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]", want: append(good[:2:2], "a 1 secrets")},
		{
			name: "a port that is not there", spec: "listeners: [{name: a, port: 443, protocol: HTTPS}, {name: b, port: 8443, protocol: HTTPS}]",
			want: []string{"Accepted True ListenersNotValid", "Programmed True Programmed", "a 1", "b 0 Accepted=PortUnavailable Programmed=Invalid"},
		},
		{
			name: "no plain HTTP", spec: "listeners: [{name: b, port: 80, protocol: HTTP}]", edit: func(w *World) { w.HTTP = 0 },
			want: []string{"Accepted False ListenersNotValid", "Programmed False Invalid", "b 0 Accepted=PortUnavailable Programmed=Invalid"},
		},
		{
			name: "protocol", spec: "listeners: [{name: a, port: 443, protocol: TLS}]",
			want: []string{"Accepted False ListenersNotValid", "Programmed False Invalid", "a 0 Accepted=UnsupportedProtocol Programmed=Invalid"},
		},
		{
			name: "two of one kind", spec: "listeners: [{name: a, port: 443, protocol: HTTPS}, {name: b, port: 443, protocol: HTTPS}]",
			want: []string{"Accepted False ListenersNotValid", "Programmed False Invalid", "a 0 Conflicted=HostnameConflict Programmed=Invalid", "b 0 Conflicted=HostnameConflict Programmed=Invalid"},
		},
		{
			name: "a host that the manifest does not have", spec: "listeners: [{name: a, port: 443, protocol: HTTPS, hostname: evil.example}]",
			want: []string{"Accepted True Accepted", "Programmed False Invalid", "a 0 Programmed=Invalid c8s.dev/ManifestAllows=NotAllowedByManifest"},
		},
		{name: "kinds", spec: "listeners: [{name: a, port: 443, protocol: HTTPS, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}]", want: append(good[:2:2], "a 1 ResolvedRefs=InvalidRouteKinds")},
		{
			name: "no address", spec: "listeners: [{name: a, port: 443, protocol: HTTPS}]", edit: func(w *World) { w.Addresses = nil },
			want: []string{"Accepted True Accepted", "Programmed False AddressNotAssigned", "a 1"},
		},
		{
			name: "another address", spec: "addresses: [{value: 198.51.100.1}]\nlisteners: [{name: a, port: 443, protocol: HTTPS}]",
			want: []string{"Accepted True Accepted", "Programmed False AddressNotUsable", "a 1"},
		},
		{
			name: "client certificates", spec: "tls: {frontend: {default: {}}}\nlisteners: [{name: a, port: 443, protocol: HTTPS}]",
			want: []string{"Accepted False InvalidParameters", "Programmed False Invalid", "a 0 Programmed=Invalid"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			if tt.edit != nil {
				tt.edit(&w)
			}
			if diff := cmp.Diff(tt.want, gatewayStatus(t, w, tt.spec)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is there already is not written again; others' parents stay, and the time
// of a condition counts from when it became what it is.
func TestStatusesAreWrittenOnce(t *testing.T) {
	w := world(t)
	text := base + one("hostnames: [bank.example]\n"+toWeb)
	o := objects(t, text)
	other := gateway.RouteParentStatus{ControllerName: "example.com/other", ParentRef: gateway.ParentReference{Name: "gw"}}
	o.HTTPRoutes[0].Status.Parents = []gateway.RouteParentStatus{other}
	for _, u := range Build(o, w).Updates(&w, epoch) {
		apply(t, o, &u)
	}
	p := o.HTTPRoutes[0].Status.Parents
	if len(p) != 2 || p[0].ControllerName != "example.com/other" || len(o.Gateways[0].Status.Conditions) != 2 || len(o.GatewayClasses[0].Status.Conditions) != 1 {
		t.Fatalf("%+v", p)
	}
	if again := Build(o, w).Updates(&w, epoch.Add(time.Hour)); len(again) != 0 {
		t.Errorf("written again: %+v", again)
	}
	w.Service = services{}.Service
	later := epoch.Add(2 * time.Hour)
	for _, u := range Build(o, w).Updates(&w, later) {
		apply(t, o, &u)
	}
	for _, c := range o.HTTPRoutes[0].Status.Parents[1].Conditions {
		if want := map[string]time.Time{"Accepted": epoch, ConditionManifest: epoch, "ResolvedRefs": later}[c.Type]; !c.LastTransitionTime.Time.Equal(want) {
			t.Errorf("%s since %s, want %s", c.Type, c.LastTransitionTime, want)
		}
	}
}

// apply does what the API server does with an update.
func apply(t *testing.T, o *Objects, u *Update) {
	t.Helper()
	raw, err := json.Marshal(u.Status)
	must(t, err)
	switch u.Kind {
	case "HTTPRoute":
		o.HTTPRoutes[0].Status.Parents = nil
		must(t, json.Unmarshal(raw, &o.HTTPRoutes[0].Status))
	case "Gateway":
		must(t, json.Unmarshal(raw, &o.Gateways[0].Status))
	case "GatewayClass":
		must(t, json.Unmarshal(raw, &o.GatewayClasses[0].Status))
	default:
		t.Fatalf("no update of %s was expected", u.Kind)
	}
}

func TestIngressesSayWhereClientsGo(t *testing.T) {
	w := world(t)
	w.Addresses = []string{"192.0.2.1", "lb.example"}
	all := Build(objects(t, ourClass+ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}]")), w).Updates(&w, epoch)
	raw, err := json.Marshal(all)
	must(t, err)
	if len(all) != 1 || !strings.Contains(string(raw), `"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"lb.example"}]}`) {
		t.Errorf("%s", raw)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := strings.Repeat("ü", 50_000)
	c := conditions{}
	if got := c.of("x", true, "y", long); len(got.Message) > 2*maxMessage+4 {
		t.Errorf("a message of %d bytes", len(got.Message))
	}
	if got := messages([]Finding{{"a", long}, {"b", long}, {"c", long}}); len(got) > 2*maxMessage+4 {
		t.Errorf("messages of %d bytes", len(got))
	}
	for in, want := range map[string]string{"ingress-host-unknown": "IngressHostUnknown", "": "Refused", "9x": "X", "ü-a": "A"} {
		if got := camel(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Of two ingresses only one hears a refusal: the other leaves its word alone,
// until it is old or about another specification.
func TestWhatAnotherIngressHeardStands(t *testing.T) {
	hears, deaf := world(t), world(t)
	o := objects(t, base+one("hostnames: [bank.example]\n"+toWeb))
	write := func(w *World, at time.Time) int {
		t.Helper()
		all := Build(o, *w).Updates(w, at)
		for _, u := range all {
			apply(t, o, &u)
		}
		return len(all)
	}
	says := func() string { return said(o.HTTPRoutes[0].Status.Parents, ConditionManifest) }
	for _, code := range []policy.Code{policy.CodeIngressWorkload, "peer-refused-certificate"} {
		hears.Refused = map[string]policy.Decision{"d/web": {Code: code}}
		write(&hears, epoch)
		if n := write(&deaf, epoch.Add(time.Minute)); n != 0 {
			t.Errorf("%s: who heard nothing writes %d statuses", code, n)
		}
		hears.Refused, hears.Cleared = nil, map[string]bool{"d/web": true}
		if write(&hears, epoch.Add(time.Minute)); !strings.HasPrefix(says(), "True") || said(o.HTTPRoutes[0].Status.Parents, ConditionReached) != "" {
			t.Errorf("%s: who said so does not take it back: %q", code, says())
		}
		hears.Cleared = nil
	}
	hears.Refused = map[string]policy.Decision{"d/web": {Code: policy.CodeIngressWorkload}}
	write(&hears, epoch)
	if write(&deaf, epoch.Add(forgetTime+time.Second)); !strings.HasPrefix(says(), "True") {
		t.Errorf("what nobody says any more stands: %q", says())
	}
	write(&hears, epoch)
	o.HTTPRoutes[0].Generation++
	if write(&deaf, epoch.Add(time.Second)); !strings.HasPrefix(says(), "True") {
		t.Errorf("what was said of another specification stands: %q", says())
	}
}

func TestOneObjectIsNotWrittenAllDay(t *testing.T) {
	now, n := epoch, 0
	w := &writer{now: func() time.Time { return now }}
	for range 3600 {
		now = now.Add(time.Second)
		limits := w.limits
		w.limits = map[string]*rate.Limiter{}
		if w.mayWrite("HTTPRoute d/r", limits) {
			n++
		}
	}
	if n < 200 || n > perObject+241 {
		t.Errorf("%d times in an hour", n)
	}
}
