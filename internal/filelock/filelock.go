// SPDX-License-Identifier: Apache-2.0

// Package filelock lets one process at a time work with a file or a folder, and
// keeps this invariant: a lock ends with the process that holds it, however that
// ends, so that nobody has to clean up before the next one starts.
//
// The locks are the kernel's (flock(2)). They hold on local file systems, and
// only among those who ask for them.
package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long a predecessor has that is ending.
	patience = time.Second
	again    = 20 * time.Millisecond
)

// ErrHeld says that another process holds the lock.
var ErrHeld = errors.New("another process holds the lock")

// Take makes the file at path if there is none, with its folder, and locks it.
// Closing it gives the lock back. The file stays: if it were removed, one
// process could lock the old file and another the new one.
func Take(path string) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if err := Hold(f); err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, nil
}

func open(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// Hold locks a file that is open, until it is closed.
func Hold(f *os.File) error {
	for began := time.Now(); ; time.Sleep(again) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case time.Since(began) > patience:
			return ErrHeld
		}
	}
}
