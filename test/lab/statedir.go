// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// baseDir holds the folders of all labs of a machine, so that Sweep finds
// those of processes long gone. It is short because sockets live in it.
const baseDir = "/run/c8s-lab"

// stateDir is one lab's folder. The owner holds a lock on the file beside it
// for as long as it lives; process ids, which are reused and differ between
// PID namespaces, are in the name for people only.
type stateDir struct {
	id   string
	path string
	lock *os.File
}

func newStateDir(name string) (*stateDir, error) {
	if err := os.MkdirAll(baseDir, 0o700); err != nil {
		return nil, fmt.Errorf("making %s: %w", baseDir, err)
	}
	id := fmt.Sprintf("%s-%d-%s", name, os.Getpid(), randomHex(4))
	d := &stateDir{id: id, path: filepath.Join(baseDir, id)}
	var err error
	// A concurrent Sweep may take and delete the file before it is locked.
	for range 10 {
		if d.lock, err = lockFile(d.path+".lock", os.O_CREATE); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"", "ns", "bpf"} {
		if err := os.Mkdir(filepath.Join(d.path, sub), 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("making the lab's folder: %w", err), d.remove())
		}
	}
	return d, nil
}

var errOwned = errors.New("the lab is in use")

// lockFile opens and locks a lock file. It fails with errOwned when a living
// process holds it.
func lockFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lab's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, errors.Join(errOwned, err))
	}
	var held, named unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &held), unix.Stat(path, &named))
	if err != nil || held.Ino != named.Ino {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: the file was replaced meanwhile", path)
	}
	return f, nil
}

// remove unmounts everything below the folder and deletes it and the lock.
func (d *stateDir) remove() error {
	if err := unmountBelow(d.path); err != nil {
		return err
	}
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("removing the lab's folder: %w", err)
	}
	if err := os.Remove(d.path + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the lab's lock: %w", err)
	}
	_ = d.lock.Close()
	_ = os.Remove(baseDir) // fails while other labs exist
	return nil
}

// mountsBelow lists mount points below dir, deepest first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	defer f.Close()
	var found []string
	for s := bufio.NewScanner(f); s.Scan(); {
		// Field 5 is the mount point (proc(5)); lab paths need no unescaping.
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append(found, fields[4])
		}
	}
	slices.Reverse(found)
	return found, nil
}

func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", m, err)
		}
	}
	// RemoveAll must never walk into a live mount.
	if mounts, err = mountsBelow(dir); err != nil {
		return err
	} else if len(mounts) > 0 {
		return fmt.Errorf("unmounting %s: %d mounts are still there", dir, len(mounts))
	}
	return nil
}

// Sweep removes what labs of dead processes left: their processes, namespaces
// (with all links), mounts and folders. Living labs, of this process too, are
// not touched. It returns the names of the labs it removed.
func Sweep() ([]string, error) {
	entries, err := os.ReadDir(baseDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweeping labs: %w", err)
	}
	var removed []string
	var errs []error
	for _, e := range entries {
		id, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			continue
		}
		switch err := sweepOne(id); {
		case err == nil:
			removed = append(removed, id)
		case !errors.Is(err, errOwned) && !errors.Is(err, os.ErrNotExist):
			errs = append(errs, fmt.Errorf("sweeping lab %s: %w", id, err))
		}
	}
	return removed, errors.Join(errs...)
}

func sweepOne(id string) error {
	d := &stateDir{id: id, path: filepath.Join(baseDir, id)}
	var err error
	if d.lock, err = lockFile(d.path+".lock", 0); err != nil {
		return err
	}
	inodes := map[uint64]bool{}
	mounts, err := mountsBelow(filepath.Join(d.path, "ns"))
	if err != nil {
		return err
	}
	for _, m := range mounts {
		var st unix.Stat_t
		if err := unix.Stat(m, &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	return errors.Join(killInNamespaces(inodes), d.remove())
}
