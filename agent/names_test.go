// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// naming is an agent that answers names of a cluster with one Service.
func naming(t *testing.T) *Agent {
	t.Helper()
	a := quiet(t)
	a.cfg.DNS = &DNS{
		Domain: "cluster.local", Service: "kube-system/kube-dns", Upstreams: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.7:53")},
	}
	a.manifest.Store(policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].DNS = []string{"api.example.com", "*.wild.example.com"}
	})).Signed)
	a.mesh.table.SetCluster(resolve.Cluster{Services: []resolve.Service{{
		Name: "default/web", VIPs: []netip.Addr{netip.MustParseAddr("10.96.0.7")},
		Ports: []resolve.Port{{Name: "http", Protocol: resolve.TCP, Port: 80}},
	}}})
	var err error
	if a.names, err = a.newNames(); err != nil {
		t.Fatal(err)
	}
	a.metrics = newMetrics(a)
	return a
}

func resolveName(t *testing.T, a *Agent, workload, name string) *dns.Msg {
	t.Helper()
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dns.Msg
	asker := datapath.Asker{UID: "u", Name: "default/web-0", Workload: workload, Addr: netip.MustParseAddr("10.1.0.1")}
	if err := m.Unpack(a.resolver().Answer(t.Context(), asker, query, false)); err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestNamesAreAnsweredFromTheTableAndTheManifest(t *testing.T) {
	a := naming(t)
	if m := resolveName(t, a, policytest.Web, "web.default.svc.cluster.local."); len(m.Answer) != 1 {
		t.Errorf("%v", m)
	}
	if m := resolveName(t, a, policytest.Web, "evil.example.com."); m.Rcode != dns.RcodeRefused {
		t.Errorf("%v", m)
	}
	// Allowed; and its only upstream, which is in the cluster, is not asked.
	if m := resolveName(t, a, policytest.Web, "api.example.com."); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	for name, want := range map[string][2]bool{
		"api.example.com": {true, false}, "a.wild.example.com": {true, true}, "wild.example.com": {false, false},
	} {
		if d, wildcard := a.nameAllowed(policytest.Web, name); d.Allowed != want[0] || wildcard != want[1] {
			t.Errorf("%s: %v, by a wildcard: %t", name, d, wildcard)
		}
	}
	if d, _ := a.nameAllowed(policytest.DB, "api.example.com"); d.Allowed {
		t.Error("a name that another workload lists")
	}
}

func TestStatusAndMetricsSayHowNamesFare(t *testing.T) {
	a := naming(t)
	resolveName(t, a, policytest.Web, "web.default.svc.cluster.local.")
	resolveName(t, a, policytest.Web, "evil.example.com.")
	resolveName(t, a, policytest.Web, "api.example.com.")
	s := a.Status().DNS
	if s == nil || s.Queries["cluster"] != 1 || s.Queries["refused"] != 1 || s.Queries["failed"] != 1 || len(s.Upstreams) != 1 || !s.Upstreams[0].Failing() {
		t.Fatalf("%+v", s)
	}
	if line := s.String(); !strings.HasPrefix(line, "cluster.local; asks 10.96.0.7:53 (failing: ") {
		t.Error(line)
	}
	_, page := get(t, a.metrics.handler(), "/metrics")
	for _, want := range []string{
		`c8s_dns_queries_total{result="cluster"} 1`, `c8s_dns_queries_total{result="refused"} 1`, `c8s_dns_queries_total{result="limited"} 0`,
		"c8s_dns_upstream_questions_total 0", `c8s_dns_upstreams{state="answering"} 0`, `c8s_dns_upstreams{state="failing"} 1`,
		`c8s_flows_total{reason="dns-name-not-allowed",verdict="refused"} 1`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestNodeWithoutDNSSaysNothingOfIt(t *testing.T) {
	a := quiet(t)
	a.metrics = newMetrics(a)
	a.forget("u")
	if a.resolver() != nil || a.dnsService() != "" {
		t.Error("there is a resolver")
	}
	raw, err := json.Marshal(a.Status())
	if err != nil || strings.Contains(string(raw), `"dns"`) {
		t.Errorf("%s, %v", raw, err)
	}
}
