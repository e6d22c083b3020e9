// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// corners are sizes at which tiles begin and end.
var corners = []int64{0, 1, 2, 255, 256, 257, 511, 512, 513, 3000, 65535, 65536, 65537, 66000}

func TestTreeHasTheRootsAndProofsOfTheReference(t *testing.T) {
	ctx := context.Background()
	ref := newReference(t, corners[len(corners)-1])
	random := rand.New(rand.NewPCG(1, 2))
	s, tree := newStorage(), NewTree()
	for _, size := range corners {
		tree = appended(t, tree, s, size, func() int64 { return random.Int64N(700) })
		if tree.Size() != size || tree.Root() != ref.root(t, size) {
			t.Fatalf("size %d, root %s; reference at %d: %s", tree.Size(), tree.Root(), size, ref.root(t, size))
		}
		loaded, err := Load(ctx, s, size, tree.Root())
		if err != nil {
			t.Fatal(err)
		}
		for _, index := range []int64{-1, size, size + 1} {
			if raw, err := tree.Record(ctx, s, index); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("entry %d of %d: %q, %v", index, size, raw, err)
			}
		}
		for range min(size, 50) {
			index, old := random.Int64N(size), 1+random.Int64N(size)
			want, _ := tlog.ProveRecord(size, index, ref)
			wantTree, _ := tlog.ProveTree(size, old, ref)
			for _, tree := range []*Tree{tree, loaded} {
				got, err := tree.ProveRecord(ctx, s, index)
				if err != nil || !slices.Equal(got, want) {
					t.Fatalf("proof of %d in %d: %v, %v", index, size, got, err)
				}
				if raw, err := tree.Record(ctx, s, index); err != nil || !bytes.Equal(raw, record(index)) {
					t.Fatalf("entry %d of %d: %q, %v", index, size, raw, err)
				}
				got, err = tree.ProveTree(ctx, s, old)
				if err != nil || !slices.Equal(got, wantTree) {
					t.Fatalf("proof of %d to %d: %v, %v", old, size, got, err)
				}
			}
		}
	}
}

func TestProofsOutsideOfTheTreeAreErrors(t *testing.T) {
	ctx, s := context.Background(), newStorage()
	tree := appended(t, NewTree(), s, 300, func() int64 { return 300 })
	for _, index := range []int64{-1, 300, 1 << 40} {
		if _, err := tree.ProveRecord(ctx, s, index); err == nil {
			t.Errorf("entry %d of 300 is proven", index)
		}
	}
	for _, old := range []int64{-1, 0, 301} {
		if _, err := tree.ProveTree(ctx, s, old); err == nil {
			t.Errorf("extension of %d to 300 is proven", old)
		}
	}
}

// However a tree came about, what it appends next is the same.
func TestAppendLoadAndExtendAreEquivalent(t *testing.T) {
	ctx := context.Background()
	random := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		s := newStorage()
		batch := func() int64 { return random.Int64N(1 + random.Int64N(400)) }
		first := appended(t, NewTree(), s, random.Int64N(600), batch)
		tree := appended(t, first, s, first.Size()+random.Int64N(600), batch)
		loaded, err := Load(ctx, s, tree.Size(), tree.Root())
		if err != nil {
			t.Fatal(err)
		}
		extended, err := first.Extend(ctx, s, tree.Size(), tree.Root())
		if err != nil {
			t.Fatalf("from %d to %d: %v", first.Size(), tree.Size(), err)
		}
		more := records(tree.Size(), tree.Size()+1+random.Int64N(600))
		next, want, err := tree.Append(more)
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range map[string]*Tree{"loaded": loaded, "extended": extended} {
			got, d, err := other.Append(more)
			if err != nil || got.Root() != next.Root() || got.Size() != next.Size() {
				t.Fatalf("%s: %d %s, %v", name, got.Size(), got.Root(), err)
			}
			if diff := cmp.Diff(want, d); diff != "" {
				t.Fatalf("%s: %s", name, diff)
			}
		}
		// The storage may be ahead of the head that was read.
		s.commit(t, want)
		for _, old := range []*Tree{first, tree} {
			again, err := Load(ctx, s, old.Size(), old.Root())
			if err != nil || again.Root() != old.Root() {
				t.Fatalf("loading %d of %d: %v", old.Size(), next.Size(), err)
			}
		}
		if again, err := first.Extend(ctx, s, tree.Size(), tree.Root()); err != nil || again.Root() != tree.Root() {
			t.Fatalf("extending %d to %d of %d: %v", first.Size(), tree.Size(), next.Size(), err)
		}
	}
}

func TestTreesAppendedToOneTreeDoNotDisturbEachOther(t *testing.T) {
	ctx := context.Background()
	s := newStorage()
	tree := appended(t, NewTree(), s, 254, func() int64 { return 1 })
	loser, _, err := tree.Append([][]byte{[]byte("lost")})
	if err != nil {
		t.Fatal(err)
	}
	winner, d, err := tree.Append(records(254, 260))
	if err != nil {
		t.Fatal(err)
	}
	s.commit(t, d)
	if again, _, _ := tree.Append([][]byte{[]byte("lost")}); again.Root() != loser.Root() {
		t.Error("a tree changed after another one was made from it")
	}
	second, _, err := tree.Append(records(254, 255))
	if err != nil {
		t.Fatal(err)
	}
	for want, made := range map[string]*Tree{"lost": loser, string(record(254)): second} {
		bundle, err := made.File(ctx, s, "tile/entries/000.p/255")
		if err != nil || !bytes.HasSuffix(bundle, []byte(want)) {
			t.Errorf("the entries end with %q, want %q: %v", bundle[max(0, len(bundle)-10):], want, err)
		}
	}
	if _, err := loser.Extend(ctx, s, winner.Size(), winner.Root()); !errors.Is(err, ErrNotExtension) {
		t.Errorf("the winner extends the loser: %v", err)
	}
	next, err := tree.Extend(ctx, s, winner.Size(), winner.Root())
	if err != nil {
		t.Fatal(err)
	}
	want := newReference(t, 260).root(t, 260)
	if next.Root() != want || winner.Root() != want {
		t.Errorf("roots %s and %s, want %s", next.Root(), winner.Root(), want)
	}
}

func TestAppendingAndProvingTheNewestReadsNothing(t *testing.T) {
	ctx := context.Background()
	s := newStorage()
	tree := NewTree()
	random := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		from := tree.Size()
		tree = appended(t, tree, s, from+1+random.Int64N(64), func() int64 { return 64 })
		for index := from; index < tree.Size(); index++ {
			if _, err := tree.ProveRecord(ctx, s, index); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(s.gets)+len(s.scans) > 0 {
		t.Errorf("read %v %v", s.gets, s.scans)
	}
}

func TestExtendInsideABundleReadsWhatIsNew(t *testing.T) {
	s := newStorage()
	old := appended(t, NewTree(), s, 20, func() int64 { return 5 })
	tree := appended(t, old, s, 30, func() int64 { return 5 })
	s.reset()
	if _, err := old.Extend(context.Background(), s, tree.Size(), tree.Root()); err != nil {
		t.Fatal(err)
	}
	want := []string{"log/piece/0000000000000000/14", "log/piece/0000000000000000/19"}
	if !slices.Equal(s.gets, want) || len(s.scans) > 0 {
		t.Errorf("read %v %v, want %v", s.gets, s.scans, want)
	}
}

func TestAppendWritesAFewFiles(t *testing.T) {
	tree := NewTree()
	puts := map[int]int{}
	for tree.Size() < 70_000 {
		next, d, err := tree.Append(records(tree.Size(), tree.Size()+64))
		if err != nil {
			t.Fatal(err)
		}
		puts[len(d.Put)]++
		tree = next
	}
	// A piece; where a bundle ends also (or instead) the bundle and a tile of
	// each of three levels.
	for n := range puts {
		if n > 5 {
			t.Errorf("appends by number of files written: %v", puts)
		}
	}
	if puts[1] < 3*puts[3] {
		t.Errorf("appends by number of files written: %v, want mostly one", puts)
	}
}

func TestAppendRefusesRecordsThatABundleCannotHold(t *testing.T) {
	tree := NewTree()
	for _, r := range [][]byte{nil, {}, make([]byte, MaxRecord+1)} {
		if _, _, err := tree.Append([][]byte{[]byte("good"), r}); err == nil {
			t.Errorf("a record of %d bytes is appended", len(r))
		}
	}
	largest := make([]byte, MaxRecord)
	s := newStorage()
	next, d, err := tree.Append([][]byte{largest})
	if err != nil {
		t.Fatal(err)
	}
	s.commit(t, d)
	if _, err := Load(context.Background(), s, 1, next.Root()); err != nil {
		t.Error(err)
	}
	if same, d, err := next.Append(nil); same != next || d.Put != nil || err != nil {
		t.Errorf("appending nothing: %v %v", d, err)
	}
}

func TestFilesAreThoseOfTheReference(t *testing.T) {
	ctx := context.Background()
	const size = 2*tileWidth + 30
	ref := newReference(t, size)
	s := newStorage()
	tree := appended(t, NewTree(), s, size, func() int64 { return 7 })
	found := 0
	for level := -1; level < 9; level++ {
		for n := range int64(4) {
			for width := 1; width <= tileWidth; width++ {
				tile := tlog.Tile{H: tileHeight, L: level, N: n, W: width}
				got, err := tree.File(ctx, s, tilePath(tile))
				if n*tileWidth+int64(width) > size>>(tileHeight*max(level, 0)) {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Fatalf("%s: %v", tilePath(tile), err)
					}
					continue
				}
				found++
				var want []byte
				if level == entriesLevel {
					for i := range width {
						want = appendRecord(want, record(n*tileWidth+int64(i)))
					}
				} else if want, err = tlog.ReadTileData(tile, ref); err != nil {
					t.Fatal(err)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes, want %d: %v", tilePath(tile), len(got), len(want), err)
				}
			}
		}
	}
	if want := 2*size + 2; found != want {
		t.Errorf("%d files, want %d", found, want)
	}
	for _, path := range []string{"", "checkpoint", "/tile/0/000", "tile/0/000.p/256", "tile/data/000", "tile/entries/9999999999999999999"} {
		if _, err := tree.File(ctx, s, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestLargeLogsHaveTheirTiles(t *testing.T) {
	ctx := context.Background()
	const size = 66_000
	ref := newReference(t, size)
	s := newStorage()
	tree := appended(t, NewTree(), s, size, func() int64 { return 1000 })
	for _, tile := range tlog.NewTiles(tileHeight, 0, size) {
		want, err := tlog.ReadTileData(tile, ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tree.File(ctx, s, tilePath(tile)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %v", tilePath(tile), err)
		}
	}
}
