// SPDX-License-Identifier: Apache-2.0

// Package diskfull tests the store of certificates on a disk without space,
// which takes root: a file system of its own in a mount namespace of its own.
package diskfull

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/ingress/certs"
	"github.com/c8s-dev/c8s/test/privileged"
)

type sealer struct{}

func (sealer) SealingKey(context.Context, string) ([32]byte, error) { return [32]byte{1}, nil }

func TestFullDiskKeepsTheOldStateAndServing(t *testing.T) {
	privileged.Require(t)
	dir := smallDisk(t)
	path := filepath.Join(dir, "state", "certs")
	open := func() *certs.Store {
		t.Helper()
		s, err := certs.Open(t.Context(), certs.Config{
			TrustDomain: "mesh.test", Names: []string{"bank.example"}, SelfSigned: true, Path: path, Sealer: sealer{},
			Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kept := run(t, open()) // and what it made is on the disk
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open()
	if err := s.SetNames([]string{"bank.example", "new.example"}); err != nil {
		t.Fatal(err)
	}
	run(t, s) // gets one for both names, and cannot keep it
	for _, st := range s.Status() {
		if st.State != certs.StateValid || st.Problem == nil || st.Problem.Code != certs.CodeUnsaved {
			t.Errorf("%v", st)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old state is gone: %v", err)
	}
	if got := open().Status()[0]; got.Serial != kept {
		t.Errorf("after a restart: %v", got)
	}
}

// run has a store do what is due, on this thread, which alone sees the disk,
// and returns the serial of its certificate.
func run(t *testing.T, s *certs.Store) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := s.Changed()
	go func() {
		<-changed
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return s.Status()[0].Serial
}

// smallDisk mounts one where only this goroutine's thread sees it. The thread
// ends with the test, and the mount with it.
func smallDisk(t *testing.T) string {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // else t cannot remove dir
	return dir
}
