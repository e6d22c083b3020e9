// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
)

// FuzzFileFromTheHost opens files a host may have made: a good one with
// changes, and checksums to match. Whatever is in it, every operation returns,
// and what opens under the key is what was sealed under it.
func FuzzFileFromTheHost(f *testing.F) {
	good := filledFile(f)
	f.Add([]byte{})
	f.Add([]byte{0, 0, 16 + 16, 0xff})           // the root's page number
	f.Add([]byte{0, 0x30, 10, 0xff})             // a count
	f.Add([]byte{0, 0x40, 16, 1, 0, 0x50, 3, 9}) // two elements
	path := filepath.Join(f.TempDir(), "store")
	f.Fuzz(func(t *testing.T, changes []byte) {
		data := append([]byte(nil), good...)
		for ; len(changes) >= 4; changes = changes[4:] {
			at := binary.BigEndian.Uint32(append([]byte{0}, changes[:3]...))
			data[int(at)%len(data)] = changes[3]
		}
		for _, page := range []int{0, 4096} {
			m := data[page+16:]
			sum := fnv.New64a()
			sum.Write(m[:56])
			binary.NativeEndian.PutUint64(m[56:], sum.Sum64())
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if readAll(t, path) != nil {
			return
		}
		s, err := store.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Either may fail; neither may end the process.
		s.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k/05", Data: make([]byte, 5000)}}})
		s.Commit(t.Context(), store.Txn{DeletePrefix: []string{"k"}})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
