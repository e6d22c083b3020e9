// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// served is a log as others see it.
type served struct {
	t       testing.TB
	storage *memStorage
	tree    *Tree

	mu      sync.Mutex
	fetched []string
	altered map[string][]byte // by path
	limit   int               // files served until it breaks; 0 is no limit
}

func serve(t testing.TB, size int64) *served {
	s := &served{t: t, storage: newStorage(), tree: NewTree(), altered: map[string][]byte{}}
	s.grow(size)
	return s
}

func (s *served) grow(size int64) {
	s.tree = appended(s.t, s.tree, s.storage, size, func() int64 { return 100 })
}

// fork makes the last of size entries another one.
func fork(t testing.TB, size int64) *served {
	s := serve(t, size-1)
	next, d, err := s.tree.Append([][]byte{[]byte("another")})
	if err != nil {
		t.Fatal(err)
	}
	s.storage.commit(t, d)
	s.tree = next
	return s
}

func (s *served) checkpoint() Checkpoint {
	return Checkpoint{testOrigin, s.tree.Size(), s.tree.Root()}
}

func (s *served) fetch(ctx context.Context, path string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched = append(s.fetched, path)
	if s.limit > 0 && len(s.fetched) > s.limit {
		return nil, errBroken
	}
	if data, ok := s.altered[path]; ok {
		if data == nil {
			return nil, fs.ErrNotExist
		}
		return data, nil
	}
	if path == pathCheckpoint {
		return sign(s.t, s.checkpoint()), nil
	}
	return s.tree.File(ctx, s.storage, path)
}

func (s *served) auditor() *Auditor {
	_, v := testLog(s.t, testOrigin)
	return NewAuditor(testOrigin, v, s.fetch)
}

// audit reads and checks every entry of the newest checkpoint.
func audit(a *Auditor) (*Checkpoint, error) {
	ctx := context.Background()
	c, _, err := a.Latest(ctx)
	if err != nil {
		return nil, err
	}
	next := int64(0)
	err = a.Entries(ctx, *c, 0, c.Size, func(index int64, raw []byte) error {
		if index != next || !bytes.Equal(raw, record(index)) {
			return fmt.Errorf("entry %d is %q, expected entry %d", index, raw, next)
		}
		next++
		return nil
	})
	if err == nil && next != c.Size {
		err = fmt.Errorf("%d entries of %d", next, c.Size)
	}
	return c, err
}

func TestAuditorReadsEveryEntry(t *testing.T) {
	for _, size := range []int64{0, 1, 255, 256, 257, 5000, 65_535, 65_537} {
		s := serve(t, size)
		c, err := audit(s.auditor())
		if err != nil || *c != s.checkpoint() {
			t.Errorf("%d entries: %+v, %v", size, c, err)
		}
	}
}

func TestAuditorReadsRanges(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 5000)
	a := s.auditor()
	for _, r := range [][2]int64{{0, 0}, {0, 1}, {255, 257}, {256, 512}, {4999, 5000}, {5000, 5000}, {100, 4900}} {
		var got []int64
		err := a.Entries(ctx, s.checkpoint(), r[0], r[1], func(index int64, _ []byte) error {
			got = append(got, index)
			return nil
		})
		if err != nil || int64(len(got)) != r[1]-r[0] || len(got) > 0 && got[0] != r[0] {
			t.Errorf("%v: %d entries, %v", r, len(got), err)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {2, 1}, {0, 5001}} {
		if err := a.Entries(ctx, s.checkpoint(), r[0], r[1], func(int64, []byte) error { return nil }); err == nil {
			t.Errorf("%v is read", r)
		}
	}
	if err := a.Entries(ctx, s.checkpoint(), 0, 10, func(int64, []byte) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("the caller's error is %v", err)
	}
}

func TestAuditorFindsAndProvesEntries(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 3000)
	a := s.auditor()
	for _, want := range []int64{0, 255, 256, 2999} {
		index, raw, err := a.Find(ctx, s.checkpoint(), 0, func(_ int64, raw []byte) bool { return bytes.Equal(raw, record(want)) })
		if err != nil || index != want || !bytes.Equal(raw, record(want)) {
			t.Errorf("found %d (%s), want %d: %v", index, raw, want, err)
		}
		proof, err := a.Prove(ctx, s.checkpoint(), index)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyInclusion(raw, index, s.checkpoint(), proof); err != nil {
			t.Error(err)
		}
		if err := VerifyInclusion(record(want+1), index, s.checkpoint(), proof); err == nil {
			t.Error("another record is proven")
		}
		if err := VerifyInclusion(raw, index+1, s.checkpoint(), proof); err == nil {
			t.Error("another index is proven")
		}
	}
	if _, _, err := a.Find(ctx, s.checkpoint(), 1, func(_ int64, raw []byte) bool { return bytes.Equal(raw, record(0)) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("found what is before: %v", err)
	}
	for _, index := range []int64{-1, 3000} {
		if _, err := a.Prove(ctx, s.checkpoint(), index); err == nil {
			t.Errorf("entry %d of 3000 is proven", index)
		}
	}
}

func TestEveryAlteredFileIsFound(t *testing.T) {
	ctx := context.Background()
	const size = 3*tileWidth + 20
	s := serve(t, size)
	if _, err := audit(s.auditor()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.auditor().Prove(ctx, s.checkpoint(), 300); err != nil {
		t.Fatal(err)
	}
	paths := append(slices.Clone(s.fetched), "tile/0/001")
	slices.Sort(paths)
	paths = slices.Compact(paths)
	if len(paths) != 8 { // the checkpoint, 4 bundles, 3 hash tiles
		t.Fatalf("%q", paths)
	}
	for _, path := range paths {
		data, err := s.fetch(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string][]byte{
			"removed": nil, "empty": {}, "cut": data[:len(data)-1], "first byte": flip(data, 0), "last byte": flip(data, len(data)-2),
		} {
			s.altered = map[string][]byte{path: value}
			a := s.auditor()
			// What is read is not looked at here: the auditor alone finds it.
			c, _, err := a.Latest(ctx)
			if err == nil {
				_, errProve := a.Prove(ctx, *c, 300)
				err = errors.Join(errProve, a.Entries(ctx, *c, 0, c.Size, func(int64, []byte) error { return nil }))
			}
			if err == nil {
				t.Errorf("%s %s goes unnoticed", path, name)
			}
		}
	}
}

// tlog-tiles lets a log remove partial tiles once there is the full one.
func TestFullFilesStandInForPartialOnes(t *testing.T) {
	s := serve(t, 300)
	old := s.checkpoint()
	s.grow(600)
	for _, path := range []string{"tile/0/001.p/44", "tile/entries/001.p/44"} {
		s.altered[path] = nil
	}
	a := s.auditor()
	n := 0
	err := a.Entries(context.Background(), old, 0, old.Size, func(int64, []byte) error { n++; return nil })
	if err != nil || n != 300 || !slices.Contains(s.fetched, "tile/entries/001") {
		t.Errorf("%d entries, %v, from %q", n, err, s.fetched)
	}
}

func TestALogThatGrowsIsConsistent(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 0)
	a := s.auditor()
	seen := []Checkpoint{s.checkpoint()}
	for _, size := range []int64{1, 255, 256, 700, 66_000} {
		s.grow(size)
		for _, old := range append(seen, s.checkpoint()) {
			if err := a.Consistent(ctx, old, s.checkpoint()); err != nil {
				t.Errorf("%d to %d: %v", old.Size, size, err)
			}
			if old.Size == size {
				continue
			}
			if err := a.Consistent(ctx, s.checkpoint(), old); !errors.Is(err, ErrOlder) || errors.Is(err, ErrForked) {
				t.Errorf("%d back to %d: %v", size, old.Size, err)
			}
		}
		seen = append(seen, s.checkpoint())
	}
}

func TestForksAreProven(t *testing.T) {
	ctx := context.Background()
	for _, sizes := range [][2]int64{{300, 300}, {300, 301}, {256, 700}, {700, 300}, {1, 2}} {
		ours, theirs := serve(t, sizes[0]), fork(t, min(sizes[0], sizes[1]))
		theirs.grow(sizes[1])
		a := theirs.auditor()
		if sizes[1] < sizes[0] { // the tiles of the larger tree are needed
			a = ours.auditor()
		}
		err := a.Consistent(ctx, ours.checkpoint(), theirs.checkpoint())
		var proof *ForkError
		if !errors.Is(err, ErrForked) || !errors.As(err, &proof) {
			t.Errorf("%v: %v", sizes, err)
			continue
		}
		if err := proof.Verify(); err != nil {
			t.Errorf("%v: %v", sizes, err)
		}
		for _, root := range []Hash{ours.tree.Root(), theirs.tree.Root()} {
			if !strings.Contains(err.Error(), root.String()) {
				t.Errorf("%v does not name %s", err, root)
			}
		}
		// The proof proves nothing about others.
		honest := *proof
		honest.Smaller.Root = proof.Root
		if honest.Verify() == nil {
			t.Error("a log without a fork is accused")
		}
		framed := *proof
		framed.Root[0] ^= 1
		if framed.Verify() == nil {
			t.Error("an invented root accuses the log")
		}
	}
}

func TestTilesOfAnotherHistoryDoNotHideAFork(t *testing.T) {
	ctx := context.Background()
	ours, theirs := serve(t, 300), fork(t, 290)
	theirs.grow(300)
	a := ours.auditor()
	old := serve(t, 295).checkpoint()
	if err := a.Consistent(ctx, old, ours.checkpoint()); err != nil {
		t.Fatal(err)
	}
	a.fetch = theirs.fetch // the same auditor is now shown the fork
	if err := a.Consistent(ctx, old, theirs.checkpoint()); !errors.Is(err, ErrForked) {
		t.Error(err)
	}
}

func TestFilesOutOfReachAreNoFork(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 300)
	old := s.checkpoint()
	s.grow(600)
	s.limit = 1
	s.fetched = make([]string, 1)
	if err := s.auditor().Consistent(ctx, old, s.checkpoint()); !errors.Is(err, errBroken) || errors.Is(err, ErrForked) {
		t.Error(err)
	}
	s.limit, s.altered["tile/0/001"] = 0, make([]byte, tileWidth*tlog.HashSize)
	if err := s.auditor().Consistent(ctx, old, s.checkpoint()); err == nil || errors.Is(err, ErrForked) {
		t.Error(err)
	}
}

func TestImpossibleCheckpointsAreRefused(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 300)
	a := s.auditor()
	for _, c := range []Checkpoint{{testOrigin, 1<<63 - 1, Hash{}}, {testOrigin, -1, Hash{}}, {testOrigin, 0, Hash{}}} {
		if a.Consistent(ctx, s.checkpoint(), c) == nil || a.Consistent(ctx, c, s.checkpoint()) == nil {
			t.Errorf("%d entries are consistent", c.Size)
		}
		_, errProve := a.Prove(ctx, c, 0)
		errs := []error{
			errProve, a.Entries(ctx, c, 0, 0, nil), VerifyInclusion(record(0), 0, c, nil),
			VerifyConsistency(c, s.checkpoint(), nil), VerifyConsistency(s.checkpoint(), c, nil),
		}
		for i, err := range errs {
			if err == nil {
				t.Errorf("%d entries: %d", c.Size, i)
			}
		}
	}
	if err := a.Consistent(ctx, Checkpoint{"other.example/c8s/log", 300, s.tree.Root()}, s.checkpoint()); err == nil {
		t.Error("checkpoints of two logs are consistent")
	}
}

func TestConsistencyProofsOfTheTreeVerify(t *testing.T) {
	ctx := context.Background()
	s := serve(t, 700)
	for _, size := range []int64{1, 256, 300, 700} {
		old := serve(t, size).checkpoint()
		proof, err := s.tree.ProveTree(ctx, s.storage, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyConsistency(old, s.checkpoint(), proof); err != nil {
			t.Error(err)
		}
		if err := VerifyConsistency(fork(t, size).checkpoint(), s.checkpoint(), proof); err == nil {
			t.Errorf("a fork at %d is consistent", size)
		}
	}
	empty := Checkpoint{testOrigin, 0, NewTree().Root()}
	if err := VerifyConsistency(empty, s.checkpoint(), nil); err != nil {
		t.Error(err)
	}
	if err := VerifyConsistency(empty, s.checkpoint(), []Hash{{}}); err == nil {
		t.Error("a proof of nothing has hashes")
	}
	if err := VerifyConsistency(empty, Checkpoint{"other", 1, Hash{}}, nil); err == nil {
		t.Error("another log extends this one")
	}
}

func TestLogsAreReadOverHTTP(t *testing.T) {
	s := serve(t, 300)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, "/log/")
		data, err := s.fetch(r.Context(), path)
		switch {
		case path == "tile/63/000":
			w.Write(make([]byte, MaxFile+1))
		case path == "tile/62/000":
			http.Error(w, "", http.StatusInternalServerError)
		case !ok || err != nil:
			http.NotFound(w, r)
		default:
			w.Write(data)
		}
	}))
	defer server.Close()
	_, v := testLog(t, testOrigin)
	fetch := HTTPFetcher(server.Client(), server.URL+"/log/")
	if c, err := audit(NewAuditor(testOrigin, v, fetch)); err != nil || *c != s.checkpoint() {
		t.Errorf("%+v, %v", c, err)
	}
	ctx := context.Background()
	if _, err := fetch(ctx, "tile/0/002"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, path := range []string{"tile/63/000", "tile/62/000", "%zz"} {
		if _, err := fetch(ctx, path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
