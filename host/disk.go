// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxFile  = 128 << 20 // the largest is a program
	maxLinks = 64
	modeFile = fs.FileMode(0o644)
	modeProg = fs.FileMode(0o755)
	modeDir  = fs.FileMode(0o755)
)

// content is a file: its bytes and who may do what with it.
type content struct {
	data     []byte
	mode     fs.FileMode
	uid, gid int
}

// same reports whether a and b are the same file; both may be nil, no file.
func (c *content) same(o *content) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.mode == o.mode && c.uid == o.uid && c.gid == o.gid && bytes.Equal(c.data, o.data)
}

func (c *content) digest() string {
	sum := sha256.Sum256(c.data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// disk is the node's file system; tests put faults into it. All paths are the
// node's.
type disk interface {
	// read returns nil where there is no file.
	read(path string) (*content, error)
	// list returns the sorted names of the files in a folder, none if it is absent.
	list(dir string) ([]string, error)
	// write replaces the file whole or not at all, and is durable when it returns.
	write(path string, c *content) error
	// remove is no error where there is no file.
	remove(path string) error
	// tidy removes what a crash within write left beside a file.
	tidy(path string) error
	// missing names the folder and its parents as far as they do not exist, parents first.
	missing(dir string) ([]string, error)
	// mkdir makes a folder whose parent exists.
	mkdir(dir string) error
	// rmdir removes a folder if it is empty.
	rmdir(dir string) error
	// lock keeps other processes of C8s from changing files until it is released.
	lock() (release func(), err error)
}

// node is a disk below a folder. Links are followed as the node would follow
// them: an absolute one starts again at the node's root, not at ours.
type node struct{ root string }

// resolve turns a path of the node into one of this process.
func (n node) resolve(path string) (string, error) {
	done, left := "", splitPath(path)
	for links := 0; len(left) > 0; {
		name := left[0]
		left = left[1:]
		if name == ".." {
			done = parentOf(done)
			continue
		}
		next := done + "/" + name
		info, err := os.Lstat(n.root + next)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0:
			done = next
			continue
		case err != nil:
			return "", err
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: more than %d links", path, maxLinks)
		}
		target, err := os.Readlink(n.root + next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			done = ""
		}
		left = append(splitPath(target), left...)
	}
	return n.root + done, nil
}

func parentOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

func splitPath(path string) []string {
	parts := strings.Split(path, "/")
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" || s == "." })
}

func (n node) read(path string) (*content, error) {
	real, err := n.resolve(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	f, err := os.Open(real)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("reading %s: not a regular file of at most %d bytes", path, maxFile)
	}
	c := &content{mode: info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky), uid: int(owner.Uid), gid: int(owner.Gid)}
	if c.data, err = io.ReadAll(io.LimitReader(f, maxFile)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return c, nil
}

func (n node) list(dir string) ([]string, error) {
	real, err := n.resolve(dir)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	entries, err := os.ReadDir(real)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// asideOf is where a file is written before it takes its place. The name is
// fixed, so that what a crash leaves is overwritten or removed by the next run,
// and no program that reads the folder takes it for one of its files.
func asideOf(real string) string {
	return filepath.Join(filepath.Dir(real), ".c8s-"+filepath.Base(real)+".tmp")
}

func (n node) write(path string, c *content) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	real, err := n.resolve(path)
	if err != nil {
		return err
	}
	aside := asideOf(real)
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(c.data)
	err = errors.Join(err, f.Chown(c.uid, c.gid), f.Chmod(c.mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(aside, real)
	}
	if err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	return syncDir(filepath.Dir(real))
}

func (n node) remove(path string) error {
	real, err := n.resolve(path)
	if err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	for _, file := range []string{asideOf(real), real} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("removing %s: %w", path, err)
		}
	}
	if err := syncDir(filepath.Dir(real)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

func (n node) tidy(path string) error {
	real, err := n.resolve(path)
	if err == nil {
		err = os.Remove(asideOf(real))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tidying up beside %s: %w", path, err)
	}
	return nil
}

func (n node) missing(dir string) ([]string, error) {
	var absent []string
	for at := dir; at != ""; at = parentOf(at) {
		real, err := n.resolve(at)
		if err == nil {
			_, err = os.Stat(real)
		}
		switch {
		case err == nil:
			return absent, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("looking for the folder %s: %w", dir, err)
		}
		absent = slices.Insert(absent, 0, at)
	}
	return absent, nil
}

func (n node) mkdir(dir string) error {
	real, err := n.resolve(dir)
	if err == nil {
		err = os.Mkdir(real, modeDir)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(os.Chmod(real, modeDir), syncDir(filepath.Dir(real))) // whatever the umask is
	}
	if err != nil {
		return fmt.Errorf("making the folder %s: %w", dir, err)
	}
	return nil
}

func (n node) rmdir(dir string) error {
	real, err := n.resolve(dir)
	if err == nil {
		err = syscall.Rmdir(real)
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTEMPTY) {
		return fmt.Errorf("removing the folder %s: %w", dir, err)
	}
	return nil
}

// lock takes Dir, or the folder that holds it as long as it is not there. Not a
// file: it would be one more to remove.
func (n node) lock() (func(), error) {
	d, err := n.open(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = n.open(parentOf(Dir))
	}
	if err != nil {
		return nil, fmt.Errorf("locking the node's files: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking the node's files: %w", errors.Join(err, d.Close()))
	}
	return func() { _ = d.Close() }, nil
}

func (n node) open(path string) (*os.File, error) {
	real, err := n.resolve(path)
	if err != nil {
		return nil, err
	}
	return os.Open(real)
}

// syncDir makes a rename or removal in the folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
