// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func newStore(t testing.TB, up Upstream, clock *fakeClock, dir string, log *bytes.Buffer) *Store {
	t.Helper()
	if log == nil {
		log = &bytes.Buffer{}
	}
	c := DefaultStoreConfig(up, slog.New(slog.NewTextHandler(log, nil)))
	c.Now, c.Dir = clock.Now, dir
	s, err := NewStore(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFiftyCallersAskOnce(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	release := make(chan struct{})
	v.hook = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Get(t.Context(), tcb508(t)); err != nil {
				t.Error(err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := v.hits.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestACallerThatGivesUpDoesNotSpoilTheFlight(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	v.hook = func(http.ResponseWriter, *http.Request) bool { entered <- struct{}{}; <-release; return false }
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	_, err := s.Get(ctx, tcb508(t))
	wantCode(t, err, CodeUnreachable)
	close(release)
	if _, err := s.Get(t.Context(), tcb508(t)); err != nil || v.hits.Load() != 1 {
		t.Errorf("%v after %d requests", err, v.hits.Load())
	}
}

func TestStoreSurvivesARestartOffline(t *testing.T) {
	v, clock, dir := newVendor(t), newFakeClock(), t.TempDir()
	s := newStore(t, v.fetcher(t, clock), clock, dir, nil)
	requests := []Request{milanVCEK(t), {Kind: AMDVCEKChain, Product: "Milan"}, tcb508(t), QEIdentity(), RootCRL()}
	for _, r := range requests {
		if _, err := s.Get(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	again := newStore(t, Offline{}, clock, dir, nil)
	for _, r := range requests {
		want, _ := s.Get(t.Context(), r)
		got, err := again.Get(t.Context(), r)
		if err != nil || !bytes.Equal(got.Body, want.Body) || len(got.Certs) != len(want.Certs) || !got.NextUpdate.Equal(want.NextUpdate) || !got.Fetched.Equal(want.Fetched) {
			t.Errorf("%s: %v", r, err)
		}
	}
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		info, statErr := e.Info()
		want := os.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if err = errors.Join(err, statErr); err != nil || (path != dir && info.Mode().Perm() != want) {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
}

func TestDamagedFilesAreFetchedAgain(t *testing.T) {
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	none := func([]byte) []byte { return nil }
	for name, c := range map[string]struct {
		sub    string
		damage func([]byte) []byte
	}{
		"flipped content": {dirObjects, flip}, "truncated content": {dirObjects, half}, "empty content": {dirObjects, none},
		"flipped entry": {dirEntries, flip}, "truncated entry": {dirEntries, half}, "empty entry": {dirEntries, none},
		"another date": {dirEntries, func(b []byte) []byte { return bytes.Replace(b, []byte("2026-04-15"), []byte("2036-04-15"), 1) }},
		"extra space":  {dirEntries, func(b []byte) []byte { return append([]byte(" "), b...) }},
	} {
		t.Run(name, func(t *testing.T) {
			v, clock, dir := newVendor(t), newFakeClock(), t.TempDir()
			want, err := newStore(t, v.fetcher(t, clock), clock, dir, nil).Get(t.Context(), tcb508(t))
			if err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, c.sub, "*"))
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err := errors.Join(err, os.WriteFile(f, c.damage(b), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var log bytes.Buffer
			s := newStore(t, v.fetcher(t, clock), clock, dir, &log)
			got, err := s.Get(t.Context(), tcb508(t))
			if err != nil || !bytes.Equal(got.Body, want.Body) || v.hits.Load() != 2 || !strings.Contains(log.String(), "file not used") {
				t.Errorf("%v after %d requests; log %q", err, v.hits.Load(), log.String())
			}
			if _, err := newStore(t, Offline{}, clock, dir, nil).Get(t.Context(), tcb508(t)); err != nil {
				t.Errorf("not mended on disk: %v", err)
			}
		})
	}
}

func TestLeftoversOfACrashAreIgnoredAndSwept(t *testing.T) {
	v, clock, dir := newVendor(t), newFakeClock(), t.TempDir()
	clock.now = time.Now()
	s := newStore(t, v.fetcher(t, clock), clock, dir, nil)
	fresh := filepath.Join(dir, dirEntries, "x.json"+tempMark+"1")
	old := filepath.Join(dir, dirObjects, "y"+tempMark+"2")
	for _, f := range []string{fresh, old} {
		if err := os.WriteFile(f, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*sweepAfter)); err != nil {
		t.Fatal(err)
	}
	// The machine stops between the contents and the entry.
	s.disk.write = func(path string, data []byte) error {
		if strings.Contains(path, dirEntries) {
			return syscall.EIO
		}
		return writeAtomic(path, data)
	}
	if _, err := s.Get(t.Context(), tcb508(t)); err != nil {
		t.Fatal(err)
	}
	again := newStore(t, Offline{}, clock, dir, nil)
	if n := len(again.Items()); n != 0 {
		t.Errorf("%d items from a half-written store", n)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("another writer's file is gone: %v", err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("an old leftover stays")
	}
}

func TestAFullDiskLeavesMemoryServing(t *testing.T) {
	v, clock, dir := newVendor(t), newFakeClock(), t.TempDir()
	var log bytes.Buffer
	s := newStore(t, v.fetcher(t, clock), clock, dir, &log)
	if _, err := s.Get(t.Context(), tcb508(t)); err != nil {
		t.Fatal(err)
	}
	s.disk.write = func(string, []byte) error { return syscall.ENOSPC }
	clock.advance(25 * time.Hour) // refresh: the old entry stays whole on disk
	for range 2 {
		if _, err := s.Get(t.Context(), tcb508(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), QEIdentity()); err != nil {
			t.Fatal(err)
		}
	}
	if v.hits.Load() != 3 || !strings.Contains(log.String(), "kept in memory only") {
		t.Errorf("%d requests; log %q", v.hits.Load(), log.String())
	}
	again := newStore(t, Offline{}, clock, dir, nil)
	if _, err := again.Get(t.Context(), tcb508(t)); err != nil {
		t.Errorf("what was on disk is lost: %v", err)
	}
}

func TestStaleItemsAreRefreshedOrReturnedWithTheirDates(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	want, err := s.Get(t.Context(), tcb508(t))
	if err != nil {
		t.Fatal(err)
	}
	clock.advance(23 * time.Hour)
	if _, err := s.Get(t.Context(), tcb508(t)); err != nil || v.hits.Load() != 1 {
		t.Fatalf("%v after %d requests; want one", err, v.hits.Load())
	}
	v.hook = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true }
	clock.advance(60 * 24 * time.Hour)
	for range 3 {
		got, err := s.Get(t.Context(), tcb508(t))
		if err != nil || !got.Stale(clock.Now()) || !got.Fetched.Equal(want.Fetched) {
			t.Errorf("%v, %v", got.NextUpdate, err)
		}
	}
	if n := v.hits.Load(); n != 2 {
		t.Errorf("%d requests; want the refusal remembered", n)
	}
	v.hook = nil
	clock.advance(brokenFor)
	got, err := s.Get(t.Context(), tcb508(t))
	if err != nil || !got.Fetched.After(want.Fetched) {
		t.Errorf("not refreshed: %v, %v", got.Fetched, err)
	}
}

func TestAClockSetBackMakesTheStoreAskAgain(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	_, _ = s.Get(t.Context(), tcb508(t))
	_, err := s.Get(t.Context(), Request{Kind: AMDCRL, Product: "Genoa"})
	wantCode(t, err, CodeNotFound)
	clock.advance(-48 * time.Hour)
	_, _ = s.Get(t.Context(), tcb508(t))
	_, _ = s.Get(t.Context(), Request{Kind: AMDCRL, Product: "Genoa"})
	if n := v.hits.Load(); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

func TestTheStoreIsBounded(t *testing.T) {
	v, clock, dir := newVendor(t), newFakeClock(), t.TempDir()
	c := DefaultStoreConfig(v.fetcher(t, clock), slog.New(slog.DiscardHandler))
	c.Now, c.Dir, c.MaxEntries = clock.Now, dir, 2
	s, err := NewStore(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Request{tcb508(t), QEIdentity(), RootCRL()} {
		if _, err := s.Get(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := filepath.Glob(filepath.Join(dir, dirEntries, "*"))
	objects, _ := filepath.Glob(filepath.Join(dir, dirObjects, "*"))
	if len(s.Items()) != 2 || len(entries) != 2 || len(objects) != 4 { // the signing chain is shared: identity, CRL, signer, root
		t.Errorf("%d items, %d entries, %d objects", len(s.Items()), len(entries), len(objects))
	}
	if _, err := newStore(t, Offline{}, clock, dir, nil).Get(t.Context(), QEIdentity()); err != nil {
		t.Error(err)
	}
}

func TestAFolderOthersMayWriteToIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // the point
		t.Fatal(err)
	}
	c := DefaultStoreConfig(Offline{}, slog.New(slog.DiscardHandler))
	c.Dir = dir
	_, err := NewStore(c)
	wantCode(t, err, CodeStore)
}

func TestCallersCannotChangeWhatIsKept(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	for range 2 {
		i, err := s.Get(t.Context(), QEIdentity())
		if err != nil || i.Body[0] != '{' {
			t.Fatal(err)
		}
		i.Body[0] = 'x'
		i.Certs[0][0] = 0
	}
}

func BenchmarkGetFresh(b *testing.B) {
	v, clock := newVendor(b), newFakeClock()
	s := newStore(b, v.fetcher(b, clock), clock, "", nil)
	r := tcb508(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
