// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// memStorage keeps the log in a map, and counts what is read.
type memStorage struct {
	files map[string][]byte
	gets  []string
	scans []string
}

func newStorage() *memStorage { return &memStorage{files: map[string][]byte{}} }

func (m *memStorage) Get(_ context.Context, key string) ([]byte, error) {
	m.gets = append(m.gets, key)
	data, ok := m.files[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return slices.Clone(data), nil
}

func (m *memStorage) Scan(_ context.Context, prefix string, fn func(string, []byte) error) error {
	m.scans = append(m.scans, prefix)
	for _, key := range slices.Sorted(maps.Keys(m.files)) {
		if strings.HasPrefix(key, prefix) {
			if err := fn(key, slices.Clone(m.files[key])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memStorage) reset() { m.gets, m.scans = nil, nil }

// commit applies a delta as a transaction does, and checks what every delta
// promises.
func (m *memStorage) commit(t testing.TB, d Delta) {
	t.Helper()
	seen := map[string]bool{}
	for _, prefix := range d.DeletePrefix {
		for key := range m.files {
			if strings.HasPrefix(key, prefix) {
				delete(m.files, key)
				seen[prefix] = true
			}
		}
		if !seen[prefix] {
			t.Fatalf("nothing to delete at %s", prefix)
		}
	}
	for _, f := range d.Put {
		if !strings.HasPrefix(f.Key, "log/") || len(f.Key) > 40 || seen[f.Key] {
			t.Fatalf("key %q", f.Key)
		}
		seen[f.Key] = true
		for _, prefix := range d.DeletePrefix {
			if strings.HasPrefix(f.Key, prefix) {
				t.Fatalf("key %q is put and deleted", f.Key)
			}
		}
		m.files[f.Key] = slices.Clone(f.Data)
	}
}

// record is the i-th record of the test's log.
func record(i int64) []byte { return fmt.Appendf(nil, "record %d", i) }

func records(from, to int64) [][]byte {
	list := make([][]byte, 0, to-from)
	for i := from; i < to; i++ {
		list = append(list, record(i))
	}
	return list
}

// reference is the same log, kept by package tlog alone.
type reference struct{ hashes []Hash }

func (r *reference) ReadHashes(indexes []int64) ([]Hash, error) {
	out := make([]Hash, len(indexes))
	for i, index := range indexes {
		out[i] = r.hashes[index]
	}
	return out, nil
}

func newReference(t testing.TB, size int64) *reference {
	t.Helper()
	r := new(reference)
	for i := range size {
		more, err := tlog.StoredHashes(i, record(i), r)
		if err != nil {
			t.Fatal(err)
		}
		r.hashes = append(r.hashes, more...)
	}
	return r
}

func (r *reference) root(t testing.TB, size int64) Hash {
	t.Helper()
	root, err := tlog.TreeHash(size, r)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// appended returns the tree with the test's records up to size, added in
// batches of at most that many, and commits them.
func appended(t testing.TB, tree *Tree, s *memStorage, size int64, batch func() int64) *Tree {
	t.Helper()
	for tree.Size() < size {
		to := min(size, tree.Size()+max(1, batch()))
		next, d, err := tree.Append(records(tree.Size(), to))
		if err != nil {
			t.Fatal(err)
		}
		s.commit(t, d)
		tree = next
	}
	return tree
}
