// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// held is a link that this process keeps open, so that it does not end with
// its pin.
type held struct {
	link.Link
	id link.ID
}

// hold keeps a link that is pinned under the name, in the place of another.
func (l *Loader) hold(name string, lnk link.Link) error {
	info, err := lnk.Info()
	if err != nil {
		return errors.Join(fmt.Errorf("reading the link of %s: %w", name, err), lnk.Close())
	}
	if l.letGo {
		return lnk.Close() // the pin, and the daemon that owns the node, hold it
	}
	if before, ok := l.held[name]; ok {
		_ = before.Close() // it is pinned, or has ended
	}
	l.held[name] = held{lnk, info.ID}
	return nil
}

// pinned opens the link of that name, nil if there is none. What another
// daemon pinned there counts more than what is held. A pin that was taken away
// is put back first. The link belongs to the Loader.
func (l *Loader) pinned(name string) (link.Link, error) {
	found, err := link.LoadPinnedLink(l.pins.link(name), nil)
	if errors.Is(err, os.ErrNotExist) {
		if h, ok := l.held[name]; ok {
			return h.Link, l.repin(name, h)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the pinned link %s: %w", name, err)
	}
	if err := l.hold(name, found); err != nil {
		return nil, err
	}
	return found, nil
}

// holdPinned holds all there is from the first moment on, so that a hand-over
// leaves no pin to itself.
func (l *Loader) holdPinned() error {
	names, err := namesIn(l.pins.links())
	if err != nil {
		return fmt.Errorf("listing the pinned links: %w", err)
	}
	for name := range names {
		if _, err := l.pinned(name); err != nil {
			return err
		}
	}
	return nil
}

// pinAndHold pins a new link and keeps it, in one step in the place of
// another of the name.
func (l *Loader) pinAndHold(name string, lnk link.Link) error {
	aside := l.pins.link(name + "_new")
	err := removePin(aside)
	if err == nil {
		err = l.pin(lnk, aside)
	}
	if err == nil {
		err = os.Rename(aside, l.pins.link(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pinning %s: %w", name, err), lnk.Close())
	}
	return l.hold(name, lnk)
}

// pinner is a link or a map.
type pinner interface {
	Pin(path string) error
	Unpin() error
}

// pin pins, and makes the folders anew that somebody removed. The object may
// remember a pin that is no more.
func (l *Loader) pin(object pinner, path string) error {
	if err := object.Unpin(); err != nil {
		return err
	}
	err := object.Pin(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := l.pins.make(); err != nil {
			return err
		}
		err = object.Pin(path)
	}
	return err
}

// repin puts a pin back that somebody removed.
func (l *Loader) repin(name string, h held) error {
	if err := l.pin(h.Link, l.pins.link(name)); err != nil {
		return fmt.Errorf("pinning %s again: %w", name, err)
	}
	l.restored.pins.Add(1)
	return nil
}

// release removes a pin and lets go of its link, which ends.
func (l *Loader) release(name string) error {
	delete(l.second, name)
	err := removePin(l.pins.link(name))
	if h, ok := l.held[name]; ok {
		delete(l.held, name)
		err = errors.Join(err, h.Close())
	}
	return err
}

// LetGo is for a daemon whose successor owns the node: the links are held by
// their pins and by that one.
func (l *Loader) LetGo() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letGo = true
	return l.closeHeld()
}

func (l *Loader) closeHeld() (err error) {
	for name, h := range l.held {
		err = errors.Join(err, h.Close())
		delete(l.held, name)
	}
	return err
}

// linkName names the link of a program on one device.
func linkName(program string, ifindex int) string { return program + "-" + strconv.Itoa(ifindex) }

// parseLinkName undoes linkName; the index is 0 for what is on no device.
func parseLinkName(name string) (program string, ifindex int) {
	program, number, ok := strings.Cut(name, "-")
	if !ok {
		return name, 0
	}
	ifindex, _ = strconv.Atoi(number) // nobody but us pins there
	return program, ifindex
}

// namesIn lists a folder of pins.
func namesIn(dir string) (map[string]bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(all))
	for _, name := range all {
		names[filepath.Base(name)] = true
	}
	return names, nil
}

// filesWanted is how many files a node of thousands of pods holds open: three
// links for each.
const filesWanted = 1 << 18

// raiseFileLimit allows for the links. Without the right to raise the limit it
// stays as it is, and what cannot be held is an error then.
func raiseFileLimit() {
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) != nil || now.Max >= filesWanted {
		return // the runtime has raised the soft limit to the hard one
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: filesWanted, Max: filesWanted})
}
