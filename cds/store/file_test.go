// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

func openFile(t testing.TB, path string) store.Store {
	t.Helper()
	s, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFileConforms(t *testing.T) {
	storetest.Conform(t, func(t *testing.T) store.Store {
		return openFile(t, filepath.Join(t.TempDir(), "store"))
	})
}

func TestFileKeepsItsContentsAndVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openFile(t, path)
	v1, err := s.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path)
	if v, err := s.Get(t.Context(), "k"); err != nil || string(v.Data) != "x" || v.Version != v1 {
		t.Errorf("after reopening: %q in version %d, %v", v.Data, v.Version, err)
	}
	v2, err := s.Commit(t.Context(), store.Txn{Delete: []string{"k"}, Put: []store.Item{{Key: "l"}}})
	if err != nil || v2 <= v1 {
		t.Errorf("version %d after %d, %v", v2, v1, err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	openFile(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestFileIsOpenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	first := openFile(t, path)
	_, err := store.OpenFile(path)
	if err == nil || !strings.Contains(err.Error(), "another c8s cds has it open") {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, path)
}

func TestFileThatIsNoStoreIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	text := strings.Repeat("not a store ", 10_000)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenFile(path); err == nil {
		t.Fatal("opened")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("the file was changed: %v", err)
	}
	if _, err := store.OpenFile(filepath.Join(path, "below")); err == nil {
		t.Error("opened below a file")
	}
	if _, err := store.OpenFile(filepath.Join(t.TempDir(), "no", "store")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a missing folder: %v", err)
	}
}
