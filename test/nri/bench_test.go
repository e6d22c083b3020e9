// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

// BenchmarkCreateContainer compares the CRI's CreateContainer with and without
// the plugin, in turns on the same node.
func BenchmarkCreateContainer(b *testing.B) {
	n := newNode(b, stack.NodeConfig{})
	d, _ := n.serve(n.manifest())
	p := n.pod(stack.PodSpec{Name: "web"})
	var spent [2]time.Duration
	made := 0
	create := func(with int) error {
		made++
		began := time.Now()
		c, err := p.Create(b.Context(), stack.ContainerSpec{Name: fmt.Sprint("c", made), Image: stackimage.AppRef, Args: []string{"sleep"}})
		if err != nil {
			return err
		}
		spent[with] += time.Since(began)
		return c.Remove(b.Context())
	}
	const turn = 20
	turns := 0
	for b.Loop() {
		turns++
		for range turn {
			if err := create(1); err != nil {
				b.Fatal(err)
			}
		}
		d.end()
		n.eventually("the plugin has left", func() bool { return !d.plugin.Connected() })
		n.eventually("containerd has noticed", func() bool {
			before := spent[0]
			err := create(0)
			spent[0] = before
			return err == nil
		})
		for range turn {
			if err := create(0); err != nil {
				b.Fatal(err)
			}
		}
		d, _ = n.serve(n.manifest())
	}
	with, without := spent[1]/time.Duration(turns*turn), spent[0]/time.Duration(turns*turn)
	b.ReportMetric(float64(with.Microseconds())/1000, "ms-with")
	b.ReportMetric(float64(without.Microseconds())/1000, "ms-without")
	b.ReportMetric(float64(with)/float64(without), "ratio")
}
