// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"runtime"
	"testing"
)

// BenchmarkIdleMemory reports what an idle link holds of this process, its
// applications' ends included.
func BenchmarkIdleMemory(b *testing.B) {
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	const links = 2000
	for b.Loop() {
		before := used()
		scenes := make([]*scene, links)
		for i := range scenes {
			scenes[i] = newScene(b, "127.0.0.1")
		}
		b.ReportMetric(float64(used()-before)/links, "B/link")
		runtime.KeepAlive(scenes)
	}
}
