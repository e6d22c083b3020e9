// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/cds/ledger"
)

type metrics struct {
	issued   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	steps    *prometheus.HistogramVec
	watchers prometheus.Gauge

	commits  *prometheus.CounterVec
	commitS  prometheus.Histogram
	together prometheus.Histogram
	attempts prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 14)
	m := &metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_cds_issued_total", Help: "Certificates issued, by role.",
		}, []string{"role"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_cds_refused_total", Help: "Calls refused, by code.",
		}, []string{"code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "c8s_cds_call_seconds", Help: "Time to answer a call.", Buckets: buckets,
		}, []string{"call"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "c8s_cds_issuance_step_seconds", Help: "Time of each step of an issuance: appraise, sign, log.", Buckets: buckets,
		}, []string{"step"}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "c8s_cds_watchers", Help: "Nodes that are told about changes.",
		}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "c8s_cds_store_commits_total", Help: "Changes of the shared state, by whether the store took them.",
		}, []string{"result"}),
		commitS: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "c8s_cds_store_commit_seconds", Help: "Time to change the shared state, races with other replicas included.", Buckets: buckets,
		}),
		together: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "c8s_cds_store_commit_changes", Help: "Changes made in one exchange with the store.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		attempts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "c8s_cds_store_races_lost_total", Help: "Tries to change the shared state in which another replica was faster.",
		}),
	}
	reg.MustRegister(m.issued, m.refused, m.latency, m.steps, m.watchers, m.commits, m.commitS, m.together, m.attempts)
	m.registerState(reg, s)
	return m
}

// registerState exposes what is true now. Before the secret is here most of it
// is zero.
func (m *metrics) registerState(reg prometheus.Registerer, s *Server) {
	gauge := func(name, help string, value func(*core) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if c := s.core.Load(); c != nil {
				return value(c)
			}
			return 0
		}))
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("c8s_cds_ready", "1 while this replica can issue.", func(c *core) float64 { return truth(c.canIssue() == nil) })
	gauge("c8s_cds_challenges_outstanding", "Nonces given out and not used yet.", func(c *core) float64 { return float64(c.challenges.outstanding()) })
	gauge("c8s_cds_enrolments_waiting", "Enrolments that wait for a processor.", func(c *core) float64 { return float64(s.gate.waiting.Load()) })
	gauge("c8s_cds_log_size", "Entries in the transparency log, as this replica sees it.", func(c *core) float64 { return float64(c.ledger.View().Head.Size) })
	gauge("c8s_cds_manifest_version", "Version of the manifest in force.", func(c *core) float64 { return float64(c.ledger.View().Head.Manifest.Version) })
	gauge("c8s_cds_denylist_version", "Version of the deny list in force; 0 without one.", func(c *core) float64 { return float64(c.ledger.View().Head.DenyList.Version) })
	gauge("c8s_cds_store_age_seconds", "Time since the shared state was last read: how far this replica may lag behind the others.", func(c *core) float64 { return c.ledger.Age().Seconds() })
	gauge("c8s_cds_store_rolled_back", "1 when this replica stopped because the store contradicts itself.", func(c *core) float64 { return truth(c.ledger.Broken() != nil) })
	gauge("c8s_cds_clock_jumps_total", "Jumps of the machine's wall clock that were not followed.", func(c *core) float64 { return float64(c.clock.Jumped()) })
	gauge("c8s_cds_issuing_key_seconds", "Time until this replica's issuing key ends.", func(c *core) float64 {
		if i := c.issuer.Intermediate(); i != nil {
			return i.Certificate().NotAfter.Sub(c.clock.Now()).Seconds()
		}
		return 0
	})
}

// step notes how long a step of an issuance took.
func (m *metrics) step(name string, began time.Time) {
	m.steps.WithLabelValues(name).Observe(time.Since(began).Seconds())
}

// commit notes a change of the shared state.
func (m *metrics) commit(c ledger.Commit) {
	result := "done"
	if c.Err != nil {
		result = "failed"
	}
	m.commits.WithLabelValues(result).Inc()
	m.commitS.Observe(c.Took.Seconds())
	m.together.Observe(float64(c.Changes))
	m.attempts.Add(float64(c.Attempts - 1))
}
