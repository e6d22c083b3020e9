// SPDX-License-Identifier: Apache-2.0

// Package diskfull tests the store in one file on a disk without space, which
// takes root: a file system of its own in a mount namespace of its own.
package diskfull

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/test/privileged"
)

func TestFullDiskIsAnErrorAndPasses(t *testing.T) {
	privileged.Require(t)
	dir := smallDisk(t, "3m")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store")
	s, err := store.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := fill(t, s)
	check(t, s, n)

	// Still full, still an error; still readable.
	if err := pair(t, s, n); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to the full disk again: %v", err)
	}
	check(t, s, n)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := pair(t, s, n); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	check(t, s, n+1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.OpenFile(path); err != nil {
		t.Fatal(err)
	}
	check(t, s, n+1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// smallDisk mounts one where only this goroutine's thread sees it. The thread
// ends with the test, and the mount with it.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // else t cannot remove dir
	return dir
}

// pair writes the n-th pair of keys in one transaction.
func pair(t *testing.T, s store.Store, n int) error {
	data := make([]byte, 30_000)
	_, err := s.Commit(t.Context(), store.Txn{Put: []store.Item{
		{Key: fmt.Sprintf("a/%04d", n), Data: data},
		{Key: fmt.Sprintf("b/%04d", n), Data: data},
	}})
	return err
}

// fill writes until the disk is full and returns how many pairs fitted.
func fill(t *testing.T, s store.Store) int {
	t.Helper()
	for n := range 1000 {
		err := pair(t, s, n)
		if errors.Is(err, syscall.ENOSPC) && n > 0 {
			return n
		}
		if err != nil {
			t.Fatalf("pair %d: %v, want that there is no space", n, err)
		}
	}
	t.Fatal("the disk is not small")
	return 0
}

// check wants exactly the first n pairs.
func check(t *testing.T, s store.Store, n int) {
	t.Helper()
	for _, prefix := range []string{"a/", "b/"} {
		found := 0
		err := s.Scan(t.Context(), prefix, func(key string, v store.Value) error {
			if want := fmt.Sprintf("%s%04d", prefix, found); key != want || len(v.Data) != 30_000 {
				t.Errorf("found %s with %d bytes, want %s", key, len(v.Data), want)
			}
			found++
			return nil
		})
		if err != nil || found != n {
			t.Errorf("%d keys under %s, %v; want %d", found, prefix, err, n)
		}
	}
}
