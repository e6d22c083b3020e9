// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/c8s-dev/c8s/test/privileged"
)

func wantFile(t *testing.T, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("the file holds %q (%v), want %q", got, err, content)
	}
}

func wantAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v in the folder (%v), want the file alone", entries, err)
	}
}

// Each step fails in turn; a write fails halfway, as on a disk that fills up.
func TestFailedStepLeavesTheOldContent(t *testing.T) {
	broken := errors.New("no more")
	for name, tt := range map[string]struct {
		fail func(d *filer)
		left string // in the file afterwards
	}{
		"write": {func(d *filer) {
			d.write = func(f *os.File, p []byte) (int, error) {
				n, _ := f.Write(p[:len(p)/2])
				return n, syscall.ENOSPC
			}
		}, "old"},
		"sync":   {func(d *filer) { d.sync = func(*os.File) error { return broken } }, "old"},
		"rename": {func(d *filer) { d.rename = func(string, string) error { return broken } }, "old"},
		"sync of the folder": {func(d *filer) {
			d.sync = func(f *os.File) error {
				if info, err := f.Stat(); err != nil || info.IsDir() {
					return broken
				}
				return f.Sync()
			}
		}, "new"}, // it is there, and may be gone after a power cut
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state", "kept")
			d := disk()
			if err := d.replace(path, []byte("old")); err != nil {
				t.Fatal(err)
			}
			tt.fail(&d)
			if err := d.replace(path, []byte("new")); err == nil {
				t.Error("the failure was not reported")
			}
			wantFile(t, path, tt.left)
			wantAlone(t, path)
		})
	}
}

func TestLeftoverOfACrashIsOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kept")
	victim := filepath.Join(t.TempDir(), "victim")
	temp := filepath.Join(filepath.Dir(path), ".kept.new")
	for name, leave := range map[string]func() error{
		"half a file": func() error { return os.WriteFile(temp, []byte("ne"), 0o400) },
		"a link":      func() error { return os.Symlink(victim, temp) },
		"a folder":    func() error { return os.MkdirAll(filepath.Join(temp, "x"), 0o700) },
	} {
		if err := leave(); err != nil {
			t.Fatal(err)
		}
		if err := disk().replace(path, []byte(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantFile(t, path, name)
		wantAlone(t, path)
	}
	if _, err := os.Stat(victim); err == nil {
		t.Error("a link was followed")
	}
}

// A real file system that is full.
func TestFullDiskKeepsWhatWasThere(t *testing.T) {
	privileged.Require(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	n, err := OpenNote(filepath.Join(dir, "note"))
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := n.Keep(7, []byte("seven")); !kept || err != nil {
		t.Fatal(kept, err)
	}
	if kept, err := n.Keep(8, bytes.Repeat([]byte{'8'}, MaxNote)); kept || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("kept %t, %v, want a full disk", kept, err)
	}
	again, err := OpenNote(filepath.Join(dir, "note"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Note{n, again} {
		if size, text := n.Largest(); size != 7 || string(text) != "seven" {
			t.Errorf("size %d, %q, want what was there before", size, text)
		}
	}
	if kept, err := n.Keep(9, []byte("nine")); !kept || err != nil { // the failed attempt freed its room
		t.Errorf("kept %t, %v", kept, err)
	}
}
