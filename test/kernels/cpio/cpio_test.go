// SPDX-License-Identifier: Apache-2.0

package cpio_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/test/kernels/cpio"
)

// The layout is that of the kernel's documentation, worked out by hand.
func TestArchiveIsAsTheKernelReadsIt(t *testing.T) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	w.Data("/d/f", 0o644, "hello")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	header := func(inode, mode, size, name string) string {
		return "070701" + inode + mode + "0000000000000000" + "00000001" + "00000000" + size + "00000000000000000000000000000000" + name + "00000000"
	}
	want := header("00000001", "000041ED", "00000000", "00000002") + "d\x00" +
		header("00000002", "000081A4", "00000005", "00000004") + "d/f\x00" + "\x00\x00" + "hello\x00\x00\x00" +
		header("00000003", "00000000", "00000000", "0000000B") + "TRAILER!!!\x00" + "\x00\x00\x00"
	if got := b.String(); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestBusyboxUnpacksWhatWasPacked(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is not here: run hack/deps kernels")
	}
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, bytes.Repeat([]byte("x"), 4097), 0o750); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	w.File("/usr/bin/program", source)
	w.Link("/bin", "usr/bin")
	w.Dir("/empty/folder")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := exec.Command(busybox, "cpio", "-i")
	c.Dir, c.Stdin = dir, &b
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st, err := os.Stat(filepath.Join(dir, "bin/program"))
	if err != nil || st.Size() != 4097 || st.Mode().Perm() != 0o750 {
		t.Errorf("the program came out as %v, %v", st, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "empty/folder")); err != nil || !st.IsDir() {
		t.Errorf("the empty folder came out as %v, %v", st, err)
	}
}

func TestFileThatCannotBeReadIsAnError(t *testing.T) {
	w := cpio.NewWriter(&bytes.Buffer{})
	w.File("/x", filepath.Join(t.TempDir(), "missing"))
	w.Data("/y", 0o644, "y")
	if err := w.Close(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
