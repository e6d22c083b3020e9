// SPDX-License-Identifier: Apache-2.0

package cds

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	issued  *prometheus.CounterVec
	refused *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, outstanding func() int) *metrics {
	m := &metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_cds_issued_total", Help: "Certificates issued, by role.",
		}, []string{"role"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_cds_refused_total", Help: "Calls refused, by code.",
		}, []string{"code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "c8s_cds_call_seconds", Help: "Time to answer a call.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
		}, []string{"call"}),
	}
	reg.MustRegister(m.issued, m.refused, m.latency, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "c8s_cds_challenges_outstanding", Help: "Nonces given out and not used yet.",
	}, func() float64 { return float64(outstanding()) }))
	return m
}
