// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/policy"
)

// codeError stands for an error without a code.
const codeError = "error"

// metrics count decisions. Labels are hooks and codes, which are enumerations;
// pods and images never become labels.
type metrics struct {
	e         *Enforcer
	now       func() time.Time
	decisions *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	stops     *prometheus.CounterVec
	pods      *prometheus.Desc
}

func newMetrics(e *Enforcer) *metrics {
	return &metrics{
		e: e, now: e.cfg.Now,
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c8s_admission_decisions_total", Help: "Answers to the runtime, by who asked and the code."}, []string{"hook", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "c8s_admission_seconds", Help: "Time to answer the runtime; \"open\" is the wait for a pod's network identity.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 17),
		}, []string{"hook"}),
		stops: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c8s_admission_stops_total", Help: "Attempts to stop running containers that the manifest does not admit."}, []string{"result"}),
		pods:  prometheus.NewDesc("c8s_admission_pods", "Pods that the runtime announced, by whether they are bound to an entry and admitted.", []string{"state"}, nil),
	}
}

// Collector exports the enforcer's metrics.
func (e *Enforcer) Collector() prometheus.Collector { return e.metrics }

// measure counts one answer and how long it took, by the error that the caller
// returns in the end.
func (m *metrics) measure(hook string, err *error) func() {
	began := m.now()
	return func() {
		code := string(policy.CodeAllowed)
		if *err != nil {
			code = codeError
			if d := (policy.Decision{}); errors.As(*err, &d) {
				code = string(policy.CodeOf(d))
			}
		}
		m.decisions.WithLabelValues(hook, code).Inc()
		m.latency.WithLabelValues(hook).Observe(m.now().Sub(began).Seconds())
	}
}

func (m *metrics) stopped(err error) {
	result := "ok"
	if err != nil {
		result = codeError
	}
	m.stops.WithLabelValues(result).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.decisions.Describe(out)
	m.latency.Describe(out)
	m.stops.Describe(out)
	out <- m.pods
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.decisions.Collect(out)
	m.latency.Collect(out)
	m.stops.Collect(out)
	for state, n := range m.e.states() {
		out <- prometheus.MustNewConstMetric(m.pods, prometheus.GaugeValue, float64(n), state)
	}
}

func (e *Enforcer) states() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := map[string]int{"announced": 0, "bound": 0, "refused": 0}
	for _, p := range e.pods {
		switch {
		case p.unfit() != nil:
			n["refused"]++
		case p.entry != nil:
			n["bound"]++
		default:
			n["announced"]++
		}
	}
	return n
}
