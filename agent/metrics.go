// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/c8s-dev/c8s/datapath"
)

// metrics exports the daemon's state when it is scraped, so that nothing on
// the data path pays for it. Cardinality is bounded: reasons, states and
// verdicts are enumerations; pods and addresses never become labels.
type metrics struct {
	a        *Agent
	registry *prometheus.Registry

	drops, restored, pods, flows, tunnels, handshakes, streams, bytes, udpFlows, datagrams, expiry, manifest, denyList, routes, avoided, lost, queries, questions, upstreams, conns, limits, published, strangers *prometheus.Desc
}

func newMetrics(a *Agent) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("c8s_"+name, help, labels, nil)
	}
	m := &metrics{
		a: a, registry: prometheus.NewRegistry(),
		drops:      desc("kernel_drops_total", "Packets refused by the kernel programs.", "reason"),
		restored:   desc("lock_restored_total", "What others took from the lock in the kernel, and this daemon put back.", "what"),
		pods:       desc("pods", "Pods of this node by state.", "state"),
		flows:      desc("flows_total", "Connections by verdict and reason.", "verdict", "reason"),
		tunnels:    desc("tunnels", "Tunnels by use.", "use"),
		handshakes: desc("tunnel_handshakes_total", "TLS handshakes of tunnels, both directions."),
		streams:    desc("tunnel_streams_total", "Connections carried by tunnels, both directions."),
		bytes:      desc("tunnel_bytes_total", "Application bytes carried.", "direction"),
		udpFlows:   desc("udp_flows", "UDP flows of pods that are carried, by direction.", "direction"),
		datagrams:  desc("datagrams_total", "Datagrams of pods, added when their flow ends, by what became of them. Dropped: too big, or faster than they could be carried on.", "outcome"),
		expiry:     desc("node_certificate_expiry_seconds", "When the node's certificate expires, in Unix time; 0 while not enrolled."),
		manifest:   desc("manifest_version", "Version of the manifest in force."),
		denyList:   desc("deny_list_version", "Version of the deny list in force; 0 while there never was one."),
		routes:     desc("routes", "What the routing table holds; ignored: what the cluster said and cannot be.", "kind"),
		avoided:    desc("endpoints_avoided", "Endpoints and nodes that failed and that Services pass over, by the reason of the last failure.", "reason"),
		conns:      desc("connections", "Connections carried now: of local pods, to local pods, from clients outside the mesh; direct: those of them without a tunnel.", "kind"),
		limits:     desc("limits_reached_total", "How often a limit was reached.", "limit"),
		published:  desc("published_ports", "Ports of the node that entries publish, by whether they are open.", "state"),
		strangers:  desc("strangers_refused_total", "Refusals of those outside the mesh, at published ports and the tunnel port; the flow records of only some of them are kept."),
		lost:       desc("cluster_stale_seconds", "For how long the API server has not been heard; 0 while it is, -1 while it never was. Absent with static routes alone."),
		queries:    desc("dns_queries_total", "DNS queries of pods by what became of them.", "result"),
		questions:  desc("dns_upstream_questions_total", "DNS questions that this node asked upstream resolvers."),
		upstreams:  desc("dns_upstreams", "Upstream resolvers by whether they answered when last asked.", "state"),
	}
	m.registry.MustRegister(a.cfg.Collectors...)
	m.registry.MustRegister(m, newOutsideMetrics(a), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.drops, m.restored, m.pods, m.flows, m.tunnels, m.handshakes, m.streams, m.bytes, m.udpFlows, m.datagrams, m.expiry, m.manifest, m.denyList, m.routes, m.avoided, m.lost, m.queries, m.questions, m.upstreams, m.conns, m.limits, m.published, m.strangers} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	status := m.a.Status()
	for reason, n := range status.Drops {
		send(m.drops, prometheus.CounterValue, float64(n), reason)
	}
	send(m.restored, prometheus.CounterValue, float64(status.Restored.Pins), "pin")
	send(m.restored, prometheus.CounterValue, float64(status.Restored.Programs), "program")
	states := map[State]int{StateSeen: 0, StateLocked: 0, StateAdmitted: 0, StateEnrolled: 0, StateOpen: 0}
	for _, p := range status.Pods {
		states[p.State]++
	}
	for state, n := range states {
		send(m.pods, prometheus.GaugeValue, float64(n), string(state))
	}
	for key, n := range m.a.flows.Counts() {
		send(m.flows, prometheus.CounterValue, float64(n), string(key.Verdict), key.Reason)
	}
	send(m.tunnels, prometheus.GaugeValue, float64(status.Tunnels.Idle), "idle")
	send(m.tunnels, prometheus.GaugeValue, float64(status.Tunnels.Busy), "busy")
	send(m.tunnels, prometheus.GaugeValue, float64(status.Tunnels.Inbound), "inbound")
	send(m.handshakes, prometheus.CounterValue, float64(status.Tunnels.Handshakes))
	send(m.streams, prometheus.CounterValue, float64(status.Tunnels.Streams))
	stats := m.a.proxy.Stats()
	send(m.bytes, prometheus.CounterValue, float64(stats.BytesSent), "sent")
	send(m.bytes, prometheus.CounterValue, float64(stats.BytesReceived), "received")
	m.collectLimits(send, stats, status.Published)
	m.collectPackets(send, stats)
	var expiry float64
	if !status.Node.NotAfter.IsZero() {
		expiry = float64(status.Node.NotAfter.Unix())
	}
	send(m.expiry, prometheus.GaugeValue, expiry)
	send(m.manifest, prometheus.GaugeValue, float64(status.Manifest.Version))
	var denyList float64
	if status.DenyList != nil {
		denyList = float64(status.DenyList.Version)
	}
	send(m.denyList, prometheus.GaugeValue, denyList)
	m.collectAvoided(send, status.Avoided)
	m.collectRoutes(send, status.Routes)
	m.collectNames(send, status.DNS)
}

func (m *metrics) collectAvoided(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), all []Avoided) {
	reasons := map[string]int{}
	for _, e := range all {
		reasons[e.Reason]++
	}
	for reason, n := range reasons {
		send(m.avoided, prometheus.GaugeValue, float64(n), reason)
	}
}

func (m *metrics) collectLimits(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), stats datapath.Stats, ports []PublishedStatus) {
	for kind, n := range map[string]int{"outgoing": stats.Outgoing, "incoming": stats.Incoming, "client": stats.Clients, "direct": stats.Direct} {
		send(m.conns, prometheus.GaugeValue, float64(n), kind)
	}
	for limit, n := range stats.Limits {
		send(m.limits, prometheus.CounterValue, float64(n), limit)
	}
	failed := 0
	for _, p := range ports {
		if p.Error != "" {
			failed++
		}
	}
	send(m.published, prometheus.GaugeValue, float64(len(ports)-failed), "open")
	send(m.published, prometheus.GaugeValue, float64(failed), "failed")
	send(m.strangers, prometheus.CounterValue, float64(stats.Strangers))
	send(m.bytes, prometheus.CounterValue, float64(stats.BytesLocal), "local")
}

func (m *metrics) collectRoutes(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), r RoutesStatus) {
	for kind, n := range map[string]int{
		"static": r.Static, "nodes": r.Nodes, "pods": r.Pods, "services": r.Services, "endpoints": r.Endpoints, "ignored": r.Ignored,
	} {
		send(m.routes, prometheus.GaugeValue, float64(n), kind)
	}
	if c := r.Cluster; c != nil {
		var stale float64
		switch {
		case c.Connected:
		case c.Since.IsZero():
			stale = -1
		default:
			stale = m.a.cfg.Now().Sub(c.Since).Seconds()
		}
		send(m.lost, prometheus.GaugeValue, stale)
	}
}

func (m *metrics) collectPackets(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), stats datapath.Stats) {
	send(m.udpFlows, prometheus.GaugeValue, float64(stats.FlowsOut), "out")
	send(m.udpFlows, prometheus.GaugeValue, float64(stats.FlowsIn), "in")
	for outcome, n := range map[string]uint64{
		"sent": stats.DatagramsSent, "received": stats.DatagramsReceived, "dropped": stats.DatagramsDropped, "refused": stats.DatagramsRefused,
	} {
		send(m.datagrams, prometheus.CounterValue, float64(n), outcome)
	}
}

// service answers on addr. A predecessor's listener elsewhere is not used.
func (m *metrics) service(addr string) Service {
	return Service{
		Name: socketMetrics,
		Listen: func(ctx context.Context, handed net.Listener) (net.Listener, error) {
			if handed != nil && listensOn(handed, addr) {
				return handed, nil
			}
			if handed != nil {
				_ = handed.Close()
			}
			ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			if err != nil {
				return nil, fmt.Errorf("listening for metrics: %w", err)
			}
			return ln, nil
		},
		Serve: func(ctx context.Context, ln net.Listener) error { return serveHTTP(ctx, ln, m.handler()) },
	}
}

// listensOn reports whether a TCP listener has the address.
func listensOn(ln net.Listener, addr string) bool {
	has, ok := ln.Addr().(*net.TCPAddr)
	want, err := net.ResolveTCPAddr("tcp", addr)
	if !ok || err != nil || has.Port != want.Port {
		return false
	}
	every := want.IP == nil || want.IP.IsUnspecified()
	return has.IP.Equal(want.IP) || every && has.IP.IsUnspecified()
}

// handler answers /metrics, /healthz (the process works) and /readyz (the
// node is enrolled and can take pods; with ?instance=, its daemon is that one).
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if want := r.FormValue("instance"); want != "" && want != m.a.cfg.Instance {
			http.Error(w, "the node belongs to another daemon", http.StatusServiceUnavailable)
			return
		}
		if err := m.a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
