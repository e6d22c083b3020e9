// SPDX-License-Identifier: Apache-2.0

// Package kept holds on disk what a machine must never go back from: the
// manifest and the deny list in force, and the largest checkpoint of the log
// it was shown. A crash or a full disk leaves the old content or the new one,
// never half of one; what cannot be read or verified stops the start, because
// going on without it could be going back.
//
// The disk is not trusted with more than remembering: what is read back is
// verified as if it came from the network. Who can roll the whole disk back
// can roll this back; see docs/design/0003-cds.md.
package kept

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// filer puts content in the place of a file's. Its steps are fields so that
// tests can have each of them fail.
type filer struct {
	write  func(f *os.File, p []byte) (int, error)
	sync   func(f *os.File) error
	rename func(from, to string) error
}

func disk() filer {
	return filer{write: (*os.File).Write, sync: (*os.File).Sync, rename: os.Rename}
}

// Replace makes content the file at path: a crash leaves the old or the new.
func Replace(path string, content []byte) error { return disk().replace(path, content) }

// Update replaces the file at path by what change makes of its content, at most
// limit bytes, nil where there is none. Other processes that update or replace
// files of the folder wait meanwhile. An error of change leaves the file alone.
func Update(path string, limit int, change func(old []byte) ([]byte, error)) error {
	return disk().update(path, limit, change)
}

func (d filer) update(path string, limit int, change func(old []byte) ([]byte, error)) error {
	var content []byte
	prepare := func() (bool, error) {
		old, err := read(path, limit)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		content, err = change(old)
		return err == nil && !(old != nil && bytes.Equal(old, content)), err
	}
	return d.replaceWith(path, func() []byte { return content }, prepare)
}

// replace makes content the file at path. The new content has its final name
// only once it is on the disk, and replace returns only once the name is, too.
// The temporary name is always the same: a crash leaves at most one, which the
// next call overwrites. One process writes at a time.
func (d filer) replace(path string, content []byte) error {
	return d.replaceIf(path, content, nil)
}

// replaceIf asks wanted, if it is not nil, while no other process can write in
// the folder: two daemons of a node share it while one takes over from the
// other, and neither may take back what the other has learned meanwhile.
func (d filer) replaceIf(path string, content []byte, wanted func() (bool, error)) error {
	return d.replaceWith(path, func() []byte { return content }, wanted)
}

func (d filer) replaceWith(path string, content func() []byte, wanted func() (bool, error)) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	folder, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer folder.Close() // and with it ends the lock
	if wanted != nil {
		if ok, err := wanted(); err != nil || !ok {
			return err
		}
	}
	temp := filepath.Join(dir, "."+filepath.Base(path)+".new")
	if err := d.fill(temp, content()); err != nil {
		return errors.Join(err, os.Remove(temp)) // a full disk has no room for leftovers
	}
	if err := d.rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return d.sync(folder)
}

func lockFolder(dir string) (*os.File, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(folder.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), folder.Close())
	}
	return folder, nil
}

func (d filer) fill(path string, content []byte) error {
	// A leftover may be anything; it must not say where or how we write.
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := d.write(f, content); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(d.sync(f), f.Close())
}

// read returns the content of the file at path, at most limit bytes. The
// error is fs.ErrNotExist where there is none.
func read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("%s holds more than %d bytes, the most possible", path, limit)
	}
	return raw, nil
}
