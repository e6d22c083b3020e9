// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/c8s-dev/c8s/test/privileged"
)

func TestPickSeesEveryEntry(t *testing.T) {
	privileged.Require(t)
	for _, entries := range []uint32{0, 1, listBatch - 1, listBatch, listBatch + 1, 5000} {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 8192})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var want []uint32
		for i := range entries {
			if err := m.Put(i, uint64(i%3)); err != nil {
				t.Fatal(err)
			}
			if i%3 == 1 {
				want = append(want, i)
			}
		}
		got, err := pick(m, func(_ uint32, value uint64) bool { return value == 1 })
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("of %d entries %d were found, want %d (%v)", entries, len(got), len(want), err)
		}
	}
}
