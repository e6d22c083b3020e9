// SPDX-License-Identifier: Apache-2.0

package cds_test

import "testing"

// BenchmarkEnrolNode includes the handshake with the CDS's evidence, making
// evidence in the simulated TEE, and its appraisal.
func BenchmarkEnrolNode(b *testing.B) {
	w := newWorld(b)
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
