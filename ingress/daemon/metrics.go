// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector counts what is asked of the parts when somebody scrapes.
func (d *Daemon) collector() prometheus.Collector { return gauges{d} }

type gauges struct{ d *Daemon }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("c8s_ingress_"+name, help, labels, nil)
}

func (g gauges) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, ch) }

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(describe(name, help), prometheus.GaugeValue, v)
	}
	s := g.d.Status()
	ready := 0.0
	if s.NotReady == "" {
		ready = 1
	}
	gauge("ready", "1 while /readyz says so.", ready)
	gauge("manifest_version", "Of the manifest in force.", float64(s.Manifest.Version))
	gauge("credential_expiry_seconds", "When the mesh certificate ends, in Unix time; 0 without one.", unix(s.NotAfter))
	oldest := time.Time{}
	for _, p := range s.Proof.Proofs {
		if oldest.IsZero() || p.Beacon.Before(oldest) {
			oldest = p.Beacon
		}
	}
	gauge("proof_beacon_seconds", "Of the oldest proof that is shown, in Unix time; 0 without one.", unix(oldest))
	gauge("hosts", "Hosts of the routes.", float64(len(s.Hosts)))
	ch <- prometheus.MustNewConstMetric(describe("proofs_total", "Rounds of proofs that succeeded."), prometheus.CounterValue, float64(s.Proof.Rounds))
	ch <- prometheus.MustNewConstMetric(describe("nonces_total", "Proofs over a client's nonce.", "result"), prometheus.CounterValue, float64(s.Proof.Nonces), "answered")
	ch <- prometheus.MustNewConstMetric(describe("nonces_total", "Proofs over a client's nonce.", "result"), prometheus.CounterValue, float64(s.Proof.NoncesDenied), "denied")
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
