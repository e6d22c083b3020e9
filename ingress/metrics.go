// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what is cheap to count. Labels are enumerations: hosts, paths
// and clients never become labels.
type metrics struct {
	requests, refusals, refused, dials *prometheus.CounterVec
	classes                            [6]prometheus.Counter // of requests, by the first digit of the status
	accepted, retries, serverErrors    prometheus.Counter
	inFlight                           prometheus.Gauge
	duration                           prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "c8s_ingress_" + name, Help: help}
	}
	m := &metrics{
		requests:     prometheus.NewCounterVec(counter("requests_total", "Requests by class of status; 0xx: a tunnel of CONNECT or WebSocket."), []string{"class"}),
		refusals:     prometheus.NewCounterVec(counter("failures_total", "Requests without a complete answer of a backend, by code."), []string{"code"}),
		refused:      prometheus.NewCounterVec(counter("connections_refused_total", "Clients' connections that were refused, by reason."), []string{"reason"}),
		dials:        prometheus.NewCounterVec(counter("backend_connections_total", "Connections into the mesh, by result."), []string{"result"}),
		accepted:     prometheus.NewCounter(counter("connections_total", "Clients' connections.")),
		retries:      prometheus.NewCounter(counter("retries_total", "Requests sent to another endpoint.")),
		serverErrors: prometheus.NewCounter(counter("connection_errors_total", "Clients' connections that failed: handshakes, broken requests.")),
		inFlight:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "c8s_ingress_requests_in_flight", Help: "Requests under way."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "c8s_ingress_request_seconds", Help: "From a request's header to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	for i := range m.classes {
		m.classes[i] = m.requests.WithLabelValues(strconv.Itoa(i) + "xx")
	}
	return m
}

func (m *metrics) request(status int, code string, took time.Duration) {
	if class := status / 100; class < len(m.classes) {
		m.classes[class].Inc()
	}
	if code != "" {
		m.refusals.WithLabelValues(code).Inc()
	}
	m.duration.Observe(took.Seconds())
}

func (m *metrics) refusedConn(reason string) { m.refused.WithLabelValues(reason).Inc() }

// Collectors are the server's metrics.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{
		m.requests, m.refusals, m.refused, m.dials, m.accepted, m.retries, m.serverErrors, m.inFlight, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "c8s_ingress_connections", Help: "Clients' connections now."}, func() float64 { return float64(s.clients.now()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "c8s_ingress_endpoints_passed_over", Help: "Endpoints that failed lately, or fail active checks."}, func() float64 {
			passing, failing := s.back.health.counts()
			return float64(passing + failing)
		}),
	}
}
