// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/test/stack"
)

// BenchmarkPodStart measures a pod's first start (RunPodSandbox, CreateContainer,
// StartContainer) on a node without C8s and on one with it, whose CDS is on the
// same machine. An iteration is a pod; what counts are the medians.
//
//	go test ./test/enforce -run xxx -bench PodStart -benchtime 20x
func BenchmarkPodStart(b *testing.B) {
	w := newWorld(b, []string{"with"})
	plain := w.plainNode("without", stack.NodeConfig{})
	for _, n := range []*node{plain, w.nodes[0]} {
		b.Run(n.Name(), func(b *testing.B) {
			var run, create, start, all []time.Duration
			for i := 0; b.Loop(); i++ {
				began := time.Now()
				p, err := n.tryPod(b.Context(), fmt.Sprintf("pod-%d", i), "strict", func(c *cri.PodSandboxConfig) {})
				made := time.Now()
				if err != nil {
					b.Fatal(err)
				}
				c, err := p.Create(b.Context(), stack.ContainerSpec{Image: w.app.Ref, Args: []string{"sleep"}})
				created := time.Now()
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				run, create = append(run, made.Sub(began)), append(create, created.Sub(made))
				start, all = append(start, time.Since(created)), append(all, time.Since(began))
				b.StopTimer()
				if err := p.Remove(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			for unit, list := range map[string][]time.Duration{"ms/run": run, "ms/create": create, "ms/start": start, "ms/pod": all} {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, unit)
			}
		})
	}
}
