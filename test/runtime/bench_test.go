// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"testing"

	"github.com/c8s-dev/c8s/test/stack"
)

// BenchmarkStartContainer is what containerd needs to start a created
// container: with runc alone, and asking a daemon that looks for its image.
func BenchmarkStartContainer(b *testing.B) {
	b.Run("runc", func(b *testing.B) { startContainers(b, newNodeWith(b, "")) })
	b.Run("c8s-runtime", func(b *testing.B) {
		n := newNode(b)
		n.serve(n.pause, n.app)
		startContainers(b, n)
	})
}

func startContainers(b *testing.B, n *node) {
	pod := n.pod(stack.PodSpec{Name: "a"})
	for b.Loop() {
		b.StopTimer()
		c := must(pod.Create(b.Context(), stack.ContainerSpec{Image: n.app.Ref}))
		b.StartTimer()
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
