// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"testing"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
)

// unlimited lets one machine enrol again and again.
func unlimited(c *cds.Config) {
	c.Limits = cds.Limits{CallsPerSecond: 1e6, CallBurst: 1e6, LivePerMachine: 1 << 30}
}

// anew starts the CDS again with other settings.
func (w *world) anew(edit func(*cds.Config)) {
	w.edit = edit
	w.stop()
	w.start(simtest.Attester(w.t, "cds", measuredFor(w.f.Operators)))
}

// BenchmarkEnrolNode includes the handshake with the CDS's evidence, making
// evidence in the simulated TEE, and its appraisal.
func BenchmarkEnrolNode(b *testing.B) {
	w := newWorld(b)
	w.anew(unlimited)
	c, att := w.client(), w.node()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.EnrolNode(b.Context(), att); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnrolPod reuses the node's connection, as a node daemon does.
func BenchmarkEnrolPod(b *testing.B) {
	w := newWorld(b)
	w.anew(unlimited)
	c := w.client()
	node, err := c.EnrolNode(b.Context(), w.node())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.EnrolPod(b.Context(), node, webPod()); err != nil {
			b.Fatal(err)
		}
	}
}
