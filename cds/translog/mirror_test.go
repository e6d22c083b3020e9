// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mirrorAuditor reads a mirror instead of the log.
func mirrorAuditor(t *testing.T, dir string) *Auditor {
	_, v := testLog(t, testOrigin)
	return NewAuditor(testOrigin, v, DirFetcher(dir))
}

// files returns the paths below a directory, except for directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			paths = append(paths, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestMirrorIsTheLog(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "mirror")
	s := serve(t, 0)
	for _, size := range []int64{0, 1, 200, 256, 300, 300, 3000, 66_000} {
		s.grow(size)
		c, err := s.auditor().Mirror(ctx, dir)
		if err != nil || *c != s.checkpoint() {
			t.Fatalf("%d entries: %+v, %v", size, c, err)
		}
		a := mirrorAuditor(t, dir)
		if c, err = audit(a); err != nil || *c != s.checkpoint() {
			t.Fatalf("auditing the mirror at %d entries: %+v, %v", size, c, err)
		}
		for _, path := range files(t, dir) {
			want, errWant := s.fetch(ctx, path)
			got, err := DirFetcher(dir)(ctx, path)
			if err != nil || errWant != nil || !slices.Equal(got, want) {
				t.Fatalf("%s differs: %v, %v", path, err, errWant)
			}
		}
	}
	// Full tiles have replaced the partial ones, but for those of the last size.
	for _, path := range files(t, dir) {
		if strings.Contains(path, "000.p/") && !strings.HasPrefix(path, "tile/2/") {
			t.Errorf("%s is left over", path)
		}
	}
	// The same proofs come out of the mirror.
	a := mirrorAuditor(t, dir)
	for _, index := range []int64{0, 5000, 65_999} {
		proof, err := a.Prove(ctx, s.checkpoint(), index)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyInclusion(record(index), index, s.checkpoint(), proof); err != nil {
			t.Error(err)
		}
	}
}

func TestInterruptedMirrorIsWholeAndResumes(t *testing.T) {
	ctx := context.Background()
	const before, after = 300, 3000
	for limit := 1; ; limit++ {
		dir := t.TempDir()
		s := serve(t, before)
		if _, err := s.auditor().Mirror(ctx, dir); err != nil {
			t.Fatal(err)
		}
		old := s.checkpoint()
		s.grow(after)
		s.fetched, s.limit = nil, limit
		_, err := s.auditor().Mirror(ctx, dir)
		if err == nil {
			if limit < 10 {
				t.Fatalf("mirrored with %d files", limit)
			}
			break
		}
		if c, err := audit(mirrorAuditor(t, dir)); err != nil || *c != old {
			t.Fatalf("interrupted after %d files: %+v, %v", limit, c, err)
		}
		bundles := len(files(t, filepath.Join(dir, "tile/entries")))
		s.fetched, s.limit = nil, 0
		if _, err := s.auditor().Mirror(ctx, dir); err != nil {
			t.Fatal(err)
		}
		if c, err := audit(mirrorAuditor(t, dir)); err != nil || *c != s.checkpoint() {
			t.Fatalf("resumed after %d files: %+v, %v", limit, c, err)
		}
		again := 0
		for _, path := range s.fetched {
			if strings.HasPrefix(path, pathEntries) {
				again++
			}
		}
		if want := after/tileWidth + 1 - (bundles - 1); again > want {
			t.Errorf("after %d files %d bundles were there; %d were fetched, want at most %d", limit, bundles, again, want)
		}
	}
}

// What an interrupted call left, or somebody else put there, is fetched again
// unless it is the log's.
func TestMirrorBelievesNoFileOfItsOwn(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := serve(t, 600)
	for path, data := range map[string][]byte{
		"tile/entries/000": appendRecord(nil, []byte("invented")),
		"tile/entries/001": {},
		"tile/0/000":       make([]byte, tileWidth*32),
		"tile/1/000.p/2":   make([]byte, 64),
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.auditor().Mirror(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if c, err := audit(mirrorAuditor(t, dir)); err != nil || *c != s.checkpoint() {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := mirrorAuditor(t, dir).Prove(ctx, s.checkpoint(), 3); err != nil {
		t.Error(err)
	}
}

func TestMirrorDoesNotGoBack(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := serve(t, 700)
	if _, err := s.auditor().Mirror(ctx, dir); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	older := serve(t, 600)
	if _, err := older.auditor().Mirror(ctx, dir); !errors.Is(err, ErrOlder) {
		t.Errorf("an older log: %v", err)
	}
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("%q became %q", before, after)
	}
	forked := fork(t, 650)
	forked.grow(800)
	if _, err := forked.auditor().Mirror(ctx, dir); !errors.Is(err, ErrForked) {
		t.Errorf("a fork: %v", err)
	}
	if c, err := audit(mirrorAuditor(t, dir)); err != nil || *c != s.checkpoint() {
		t.Errorf("%+v, %v", c, err)
	}
	// The evidence is kept.
	_, v := testLog(t, testOrigin)
	signed, err := os.ReadFile(filepath.Join(dir, ForkedCheckpoint))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := OpenCheckpoint(signed, testOrigin, v); err != nil || *c != forked.checkpoint() {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := DirFetcher(dir)(ctx, ForkedCheckpoint); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the evidence is served: %v", err)
	}
}

func TestMirrorOfAnotherLogIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	other := sign(t, Checkpoint{"other.example/c8s/log", 0, NewTree().Root()})
	if err := os.WriteFile(filepath.Join(dir, pathCheckpoint), other, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := serve(t, 10).auditor().Mirror(context.Background(), dir); err == nil {
		t.Error("mirrored over another log")
	}
	if got := files(t, dir); !slices.Equal(got, []string{pathCheckpoint}) {
		t.Errorf("%q", got)
	}
}

func TestOnlyFilesOfTheLogAreReadFromAMirror(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../secret", "tile/../../secret", "/etc/hostname", "tile/entries/../../../secret", ""} {
		if _, err := DirFetcher(sub)(ctx, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
}
