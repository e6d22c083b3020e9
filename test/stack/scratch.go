// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// locks holds a file for each node of the machine. Its owner keeps a lock
	// on it for as long as it lives, and it says where the node's folder is.
	locks = "/run/c8s-stack"
	// prefix marks our folders and cgroups.
	prefix = "c8s-stack-"
	// DirEnv names the folder for scratch folders, $TMPDIR or /tmp if unset.
	DirEnv = "C8S_STACK_DIR"
)

// A scratch is what a node has on the machine: a folder and a name for its
// cgroups, both gone with its owner, or swept up by the next one.
type scratch struct {
	id   string // prefix, owner's process id, node's name, random
	dir  string
	lock *os.File
}

func newScratch(name string) (*scratch, error) {
	base := os.Getenv(DirEnv)
	if base == "" {
		base = os.TempDir()
	}
	if err := checkBase(base); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(locks, 0o700); err != nil {
		return nil, err
	}
	var s *scratch
	var err error
	for range 5 { // somebody's Sweep may take and delete the file before it is locked
		var random [4]byte
		_, _ = rand.Read(random[:])
		id := fmt.Sprintf("%s%d-%s-%s", prefix, os.Getpid(), name, hex.EncodeToString(random[:]))
		s = &scratch{id: id, dir: filepath.Join(base, id)}
		if s.lock, err = takeLock(filepath.Join(locks, id), os.O_CREATE|os.O_EXCL); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.lock.WriteString(s.dir); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// checkBase refuses places where a node cannot keep its overlays.
func checkBase(base string) error {
	for _, own := range []string{"/etc", "/var", "/opt", "/run", "/usr/local"} {
		if base == own || strings.HasPrefix(base, own+"/") {
			return fmt.Errorf("%s is below %s, of which a node has its own: set %s to another place", base, own, DirEnv)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(base, &fs); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", base, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on an overlay, which cannot hold others: set %s to a folder on a real file system", base, DirEnv)
	}
	return nil
}

// takeLock fails when a living process has the lock or the file just went.
func takeLock(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	held, err1 := f.Stat()
	named, err2 := os.Stat(path)
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(held, named) {
		return nil, errors.Join(fmt.Errorf("locking %s: it was replaced meanwhile", path), err, f.Close())
	}
	return f, nil
}

// remove deletes the folder. The lock goes last: without it nobody would know
// of what is left.
func (s *scratch) remove() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("removing %s: %w", s.dir, err)
	}
	return errors.Join(os.Remove(filepath.Join(locks, s.id)), s.lock.Close())
}

// Sweep removes what nodes of dead processes left behind.
func Sweep(ctx context.Context) error {
	entries, err := os.ReadDir(locks)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		lock, err := takeLock(filepath.Join(locks, e.Name()), 0)
		if err != nil {
			continue // it lives, or somebody else sweeps it
		}
		dir, err := os.ReadFile(filepath.Join(locks, e.Name()))
		if err != nil {
			_ = lock.Close() // swept between opening and locking
			continue
		}
		s := &scratch{id: e.Name(), dir: string(dir), lock: lock}
		if filepath.Base(s.dir) != s.id {
			s.dir = "" // killed before it was written
		}
		if err := s.sweep(ctx); err != nil {
			errs = append(errs, fmt.Errorf("sweeping up %s: %w", s.id, err))
		}
	}
	return errors.Join(errs...)
}

func (s *scratch) sweep(ctx context.Context) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	c := &cgroups{name: s.id, all: all}
	if err := errors.Join(c.kill(ctx), c.remove(ctx)); err != nil {
		return err
	}
	return s.remove()
}
