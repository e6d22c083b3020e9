// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/cilium/ebpf"
)

// listBatch is how many entries of a map are read by one system call.
const listBatch = 1024

// pick lists the keys of a hash whose entries fit. One entry a system call
// would have a new pod wait longer the more pods there are.
func pick[K, V any](m *ebpf.Map, fits func(K, V) bool) ([]K, error) {
	var found []K
	var at ebpf.MapBatchCursor
	keys, values := make([]K, listBatch), make([]V, listBatch)
	for {
		n, err := m.BatchLookup(&at, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i := range n {
			if fits(keys[i], values[i]) {
				found = append(found, keys[i])
			}
		}
		if err != nil { // that was all
			return found, nil
		}
	}
}
