// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// quiet is an agent with a proxy that listens nowhere.
func quiet(t *testing.T) *Agent {
	t.Helper()
	a := &Agent{
		cfg:  Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), NodeAddr: netip.MustParseAddr("10.80.0.1")},
		pods: map[string]*member{}, ending: map[*member]struct{}{}, flows: flow.NewRing(8),
		kernel: &fakeKernel{pods: map[int]loader.Pod{}}, bindings: external.New(external.Config{Now: time.Now}),
	}
	a.mesh = emptyMesh(t, a)
	a.manifest.Store(policytest.New(t).Signed)
	var err error
	a.proxy, err = datapath.New(datapath.Config{Mesh: a.mesh, Marks: datapath.Marks{Mask: 1}, NodeAddr: a.cfg.NodeAddr, Flows: a.flows, Now: time.Now, Log: a.cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body)
}

func TestMetricsExportDropsPodsAndFlows(t *testing.T) {
	a := quiet(t)
	for i, state := range []State{StateOpen, StateOpen, StateLocked} {
		p := newPod(a, PodInfo{Name: fmt.Sprint(i)})
		p.set(state, "", "")
		a.pods[fmt.Sprint(i)] = &member{pod: p}
	}
	a.flows.Add(flow.Record{Verdict: flow.Refused, Reason: "no-route"})
	a.bindings.Learn("uid", "api.example.com", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, time.Hour)
	fixture := policytest.New(t)
	a.denied.Store(fixture.DenyList(t, fixture.DenyList(t, nil)))
	code, body := get(t, newMetrics(a).handler(), "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	for _, line := range []string{
		`c8s_kernel_drops_total{reason="pod-locked"} 3`,
		`c8s_lock_restored_total{what="pin"} 5`, `c8s_lock_restored_total{what="program"} 2`,
		`c8s_pods{state="open"} 2`, `c8s_pods{state="locked"} 1`, `c8s_pods{state="seen"} 0`,
		`c8s_flows_total{reason="no-route",verdict="refused"} 1`,
		`c8s_tunnels{use="idle"} 0`, `c8s_node_certificate_expiry_seconds 0`,
		fmt.Sprintf("c8s_manifest_version %d", a.manifest.Load().Manifest.Version),
		"c8s_deny_list_version 2", "c8s_external_bindings 1", "c8s_external_connections_total 0", `c8s_external_bytes_total{direction="sent"} 0`,
		`c8s_connections{kind="client"} 0`, `c8s_limits_reached_total{limit="handshakes"} 0`, `c8s_published_ports{state="failed"} 0`,
		"c8s_strangers_refused_total 0", `c8s_tunnel_bytes_total{direction="local"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestMetricsCountWhatServicesPassOverByReason(t *testing.T) {
	m := newMetrics(quiet(t))
	got := map[string]float64{}
	m.collectAvoided(func(_ *prometheus.Desc, _ prometheus.ValueType, v float64, labels ...string) {
		got[strings.Join(labels, ",")] = v
	}, []Avoided{{Reason: "node-timeout"}, {Reason: "peer-address", Workload: "a"}, {Reason: "peer-address", Workload: "b"}})
	if len(got) != 2 || got["node-timeout"] != 1 || got["peer-address"] != 2 {
		t.Errorf("%v", got)
	}
}

// fakeCluster is an API server's word that never comes.
type fakeCluster struct {
	connected bool
	since     time.Time
}

func (c *fakeCluster) Fill(ctx context.Context, _ *resolve.Table) error {
	<-ctx.Done()
	return ctx.Err()
}
func (c *fakeCluster) Contact() (bool, time.Time) { return c.connected, c.since }

func TestMetricsSayHowStaleTheRoutesAre(t *testing.T) {
	a := quiet(t)
	now := time.Now()
	a.cfg.Now = func() time.Time { return now }
	a.mesh.table.SetStatic([]resolve.Route{{Prefix: netip.MustParsePrefix("10.81.1.0/24"), Node: a.cfg.NodeAddr}})
	a.mesh.table.SetCluster(resolve.Cluster{Nodes: []resolve.Node{{Name: "n", Addr: a.cfg.NodeAddr}, {Name: "no address"}}})
	h := newMetrics(a).handler()
	_, body := get(t, h, "/metrics")
	if strings.Contains(body, "c8s_cluster_stale_seconds ") {
		t.Error("static routes cannot be stale")
	}
	for _, tt := range []struct {
		connected bool
		since     time.Time
		want      string
	}{{false, time.Time{}, "-1"}, {true, now.Add(-time.Hour), "0"}, {false, now.Add(-90 * time.Second), "90"}} {
		a.cfg.Cluster = &fakeCluster{tt.connected, tt.since}
		_, body := get(t, h, "/metrics")
		for _, line := range []string{
			"c8s_cluster_stale_seconds " + tt.want, `c8s_routes{kind="static"} 1`, `c8s_routes{kind="nodes"} 1`, `c8s_routes{kind="ignored"} 1`,
		} {
			if !strings.Contains(body, line+"\n") {
				t.Errorf("%+v: no line %q", tt, line)
			}
		}
	}
}

func TestReadyOnlyWithAValidNodeCertificate(t *testing.T) {
	a := quiet(t)
	a.cfg.Instance = "this"
	h := newMetrics(a).handler()
	for _, tt := range []struct {
		life time.Duration // zero: not enrolled
		code int
		says string
	}{
		{0, http.StatusServiceUnavailable, errNodeNotEnrolled.Error()},
		{time.Hour, http.StatusOK, "ok"},
		{-time.Second, http.StatusServiceUnavailable, "expired"},
	} {
		if tt.life != 0 {
			a.node.Store(credential("", tt.life, nil))
		}
		if code, body := get(t, h, "/readyz"); code != tt.code || !strings.Contains(body, tt.says) {
			t.Errorf("life %s: /readyz says %d %q, want %d %q", tt.life, code, body, tt.code, tt.says)
		}
		if code, _ := get(t, h, "/readyz?instance=other"); code != http.StatusServiceUnavailable {
			t.Errorf("life %s: another instance is ready: %d", tt.life, code)
		}
		if code, _ := get(t, h, "/readyz?instance=this"); code != tt.code {
			t.Errorf("life %s: /readyz of this instance says %d, want %d", tt.life, code, tt.code)
		}
		if code, _ := get(t, h, "/healthz"); code != http.StatusOK {
			t.Errorf("/healthz says %d", code)
		}
	}
}

func TestMetricsServerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s := newMetrics(quiet(t)).service("127.0.0.1:0")
	ln, err := s.Listen(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ctx, ln); ctx.Err() == nil {
		t.Errorf("it ended early: %v", err)
	}
}

func TestMetricsListenerOfAPredecessorIsUsedWhereItFits(t *testing.T) {
	for _, tt := range []struct {
		listens, want string
		same          bool
	}{
		{"127.0.0.1:0", "127.0.0.1:%d", true},
		{"127.0.0.1:0", "127.0.0.2:%d", false},
		{"0.0.0.0:0", ":%d", true},
		{"0.0.0.0:0", "127.0.0.1:%d", false},
		{"127.0.0.1:0", "127.0.0.1:1%d", false},
	} {
		before, err := net.Listen("tcp4", tt.listens)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(tt.want, before.Addr().(*net.TCPAddr).Port)
		if same := listensOn(before, want); same != tt.same {
			t.Errorf("%s is %s: %t, want %t", before.Addr(), want, same, tt.same)
		}
		before.Close()
	}
}
