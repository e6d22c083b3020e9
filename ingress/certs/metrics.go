// SPDX-License-Identifier: Apache-2.0

package certs

import "github.com/prometheus/client_golang/prometheus"

// metrics are read from the store when they are scraped. Names are labels: the
// operators list them.
type metrics struct {
	s                              *Store
	orders                         *prometheus.CounterVec
	expiry, problem, keys, unsaved *prometheus.Desc
}

func newMetrics(s *Store, reg prometheus.Registerer) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("c8s_ingress_"+name, help, labels, nil)
	}
	m := &metrics{
		s: s,
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_ingress_certificate_tries_total", Help: "Tries to get a certificate, by what came of them: issued, or the code of the refusal.",
		}, []string{"result"}),
		expiry:  desc("certificate_expiry_timestamp_seconds", "End of the served certificate, in Unix time; zero where there is none.", "name"),
		problem: desc("certificate_problem", "1 for each name whose last try failed, with the code.", "name", "code"),
		keys:    desc("tls_keys", "TLS keys in use: two during a rotation."),
		unsaved: desc("certificate_state_unsaved", "1 while the sealed state cannot be written."),
	}
	if reg != nil {
		reg.MustRegister(m.orders, m)
	}
	return m
}

func (m *metrics) order(result string) { m.orders.WithLabelValues(result).Inc() }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.expiry, m.problem, m.keys, m.unsaved} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, st := range m.s.Status() {
		until := 0.0
		if !st.NotAfter.IsZero() {
			until = float64(st.NotAfter.Unix())
		}
		gauge(m.expiry, until, st.Name)
		if st.Problem != nil {
			gauge(m.problem, 1, st.Name, st.Problem.Code)
		}
	}
	gauge(m.keys, float64(len(m.s.Keys())))
	unsaved := 0.0
	m.s.mu.Lock()
	if m.s.unsaved != nil {
		unsaved = 1
	}
	m.s.mu.Unlock()
	gauge(m.unsaved, unsaved)
}
