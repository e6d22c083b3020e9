// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/prometheus/client_golang/prometheus"

// outsideMetrics are about what leaves the mesh. Rules, names and addresses are
// no labels: flow records have them.
type outsideMetrics struct {
	a *Agent

	conns, bytes, bindings, displaced *prometheus.Desc
}

func newOutsideMetrics(a *Agent) *outsideMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("c8s_external_"+name, help, labels, nil)
	}
	return &outsideMetrics{
		a:         a,
		conns:     desc("connections_total", "Connections of pods to endpoints outside the mesh that external rules allowed."),
		bytes:     desc("bytes_total", "Application bytes of ended connections to endpoints outside the mesh, as pods see them.", "direction"),
		bindings:  desc("bindings", "Addresses that the node answered pods with for external names, and that count for external rules."),
		displaced: desc("bindings_displaced_total", "Such addresses that gave way to others before their time."),
	}
}

// Describe implements prometheus.Collector.
func (m *outsideMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.conns, m.bytes, m.bindings, m.displaced} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *outsideMetrics) Collect(out chan<- prometheus.Metric) {
	stats, held := m.a.proxy.Stats(), m.a.bindings.Stats()
	out <- prometheus.MustNewConstMetric(m.conns, prometheus.CounterValue, float64(stats.External))
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(stats.ExternalSent), "sent")
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(stats.ExternalReceived), "received")
	out <- prometheus.MustNewConstMetric(m.bindings, prometheus.GaugeValue, float64(held.Held))
	out <- prometheus.MustNewConstMetric(m.displaced, prometheus.CounterValue, float64(held.Displaced))
}
