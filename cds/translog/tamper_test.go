// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// use does everything that can be done with a stored log, and returns the first
// error. What it returns without an error must be right.
func use(t *testing.T, s *memStorage, size int64, ref *reference) error {
	t.Helper()
	ctx := context.Background()
	root := ref.root(t, size)
	tree, err := Load(ctx, s, size, root)
	if err != nil {
		return err
	}
	for index := int64(0); index < size; index += 37 {
		proof, err := tree.ProveRecord(ctx, s, index)
		if err != nil {
			return err
		}
		raw, err := tree.Record(ctx, s, index)
		if err != nil {
			return err
		}
		if err := VerifyInclusion(raw, index, Checkpoint{Size: size, Root: root}, proof); err != nil {
			t.Fatal(err)
		}
	}
	for _, tile := range tlog.NewTiles(tileHeight, 0, size) {
		got, err := tree.File(ctx, s, tilePath(tile))
		if err != nil {
			return err
		}
		if want, _ := tlog.ReadTileData(tile, ref); !bytes.Equal(got, want) {
			t.Fatalf("%s is wrong", tilePath(tile))
		}
		if tile.L > 0 {
			continue
		}
		bundle := tlog.Tile{H: tileHeight, L: entriesLevel, N: tile.N, W: tile.W}
		if got, err = tree.File(ctx, s, tilePath(bundle)); err != nil {
			return err
		}
		var want []byte
		for i := range tile.W {
			want = appendRecord(want, record(tile.N*tileWidth+int64(i)))
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s is wrong", tilePath(bundle))
		}
	}
	return nil
}

func TestTamperedStorageIsFound(t *testing.T) {
	const size = 3*tileWidth + 20
	ref := newReference(t, size)
	s := newStorage()
	older := map[string][]byte{}
	batch := func() int64 { return 9 }
	tree := NewTree()
	for tree.Size() < size {
		maps.Copy(older, s.files)
		tree = appended(t, tree, s, min(size, tree.Size()+50), batch)
	}
	if err := use(t, s, size, ref); err != nil {
		t.Fatal(err)
	}
	if len(s.files) != 10 { // 3 bundles, 3 tiles, 1 above them, 3 pieces
		t.Fatalf("%d keys", len(s.files))
	}
	truth := maps.Clone(s.files)
	outdated := 0
	for key, data := range truth {
		for name, value := range map[string][]byte{
			"removed":       nil,
			"empty":         {},
			"cut":           data[:len(data)-1],
			"cut by a hash": data[:max(0, len(data)-tlog.HashSize)],
			"longer":        append(bytes.Clone(data), 0),
			"first byte":    flip(data, 0),
			"third byte":    flip(data, 2),
			"last byte":     flip(data, len(data)-1),
			"older":         older[key],
			"of another":    other(truth, key),
		} {
			if name != "removed" && value == nil || bytes.Equal(value, data) {
				continue // there is no older one
			}
			if name == "older" {
				outdated++
			}
			s.files = maps.Clone(truth)
			if s.files[key] = value; name == "removed" {
				delete(s.files, key)
			}
			err := use(t, s, size, ref)
			if !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s %s: %v", key, name, err)
			}
		}
	}
	if outdated == 0 {
		t.Error("no key had an older version")
	}
}

func flip(data []byte, i int) []byte {
	data = bytes.Clone(data)
	data[i] ^= 1
	return data
}

// other returns the value of another key of the same kind.
func other(files map[string][]byte, key string) []byte {
	for k, v := range files {
		if k != key && k[:9] == key[:9] {
			return v
		}
	}
	return nil
}

func TestRolledBackStorageIsFound(t *testing.T) {
	ctx := context.Background()
	s := newStorage()
	old := appended(t, NewTree(), s, 300, func() int64 { return 10 })
	before := maps.Clone(s.files)
	tree := appended(t, old, s, 600, func() int64 { return 10 })
	rolledBack := &memStorage{files: before}
	// With the old head, or with the new one over old files.
	if _, err := tree.Extend(ctx, rolledBack, old.Size(), old.Root()); !errors.Is(err, ErrNotExtension) {
		t.Errorf("an older head: %v", err)
	}
	if _, err := Load(ctx, rolledBack, tree.Size(), tree.Root()); !errors.Is(err, ErrDamaged) {
		t.Errorf("older files: %v", err)
	}
	if _, err := old.Extend(ctx, rolledBack, tree.Size(), tree.Root()); !errors.Is(err, ErrDamaged) {
		t.Errorf("extending over older files: %v", err)
	}
}

func TestForksAreFound(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int64{10, 255, 256, 300, 600} {
		s := newStorage()
		tree := appended(t, NewTree(), s, size, func() int64 { return 10 })
		for _, more := range []int64{0, 1, 30, 300} {
			// The same log, but for the last record that tree knows.
			forked := newStorage()
			fork := appended(t, NewTree(), forked, size-1, func() int64 { return 10 })
			fork, d, err := fork.Append([][]byte{[]byte("another")})
			if err != nil {
				t.Fatal(err)
			}
			forked.commit(t, d)
			fork = appended(t, fork, forked, size+more, func() int64 { return 10 })
			if _, err := tree.Extend(ctx, forked, fork.Size(), fork.Root()); !errors.Is(err, ErrNotExtension) {
				t.Errorf("%d entries, %d more: %v", size, more, err)
			}
		}
	}
}

func TestUnreachableStorageIsNotDamage(t *testing.T) {
	s := newStorage()
	tree := appended(t, NewTree(), s, 600, func() int64 { return 10 })
	broken := brokenStorage{}
	ctx := context.Background()
	_, errLoad := Load(ctx, broken, tree.Size(), tree.Root())
	_, errProve := tree.ProveRecord(ctx, broken, 0)
	_, errFile := tree.File(ctx, broken, "tile/entries/000")
	_, errExtend := NewTree().Extend(ctx, broken, tree.Size(), tree.Root())
	for _, err := range []error{errLoad, errProve, errFile, errExtend} {
		if !errors.Is(err, errBroken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotExtension) {
			t.Error(err)
		}
	}
}

var errBroken = errors.New("out of reach")

type brokenStorage struct{}

func (brokenStorage) Get(context.Context, string) ([]byte, error) { return nil, errBroken }

func (brokenStorage) Scan(context.Context, string, func(string, []byte) error) error {
	return errBroken
}
