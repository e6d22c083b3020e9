// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// mendAll mends, and has links whose lock could not be mended locked anew. An
// error is the end of the daemon: without its listeners the kernel refuses all.
func (w *watcher) mendAll() error {
	var broken map[int]error
	var fatal error
	if err := w.change(func() error { broken, fatal = w.mend(); return nil }); err != nil {
		w.log.Warn("looking after the lock", "err", err)
	}
	if fatal != nil {
		return fatal
	}
	for index, err := range broken {
		w.breakLink(index, err)
	}
	return nil
}

// lockOrClose closes the pod of a link that cannot be locked.
func (l *Loader) lockOrClose(ifindex int) error {
	err := l.lockLink(ifindex)
	if err != nil {
		err = errors.Join(err, l.closePod(ifindex))
	}
	return err
}

// breakLink reports a link that lost its lock. It is as one that was never
// locked, and tried again with all that failed.
func (w *watcher) breakLink(index int, err error) {
	name := w.known[index]
	delete(w.known, index)
	w.failed[index] = true
	w.report(LinkEvent{Kind: LinkFailed, Name: name, Ifindex: index, Err: err})
}

// handleFilter notes links whose filters or qdiscs changed. Below a tcx program
// only what is taken away counts, and our own changes add.
func (w *watcher) handleFilter(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWTFILTER, unix.RTM_NEWQDISC:
		if !w.clsact {
			return true
		}
	case unix.RTM_DELTFILTER, unix.RTM_DELQDISC:
	default:
		return false
	}
	if len(m.Data) >= nl.SizeofTcMsg {
		index := int(nl.DeserializeTcMsg(m.Data).Ifindex)
		if w.known[index] != "" {
			w.doubt[index] = true
		}
	}
	return true
}

func (w *watcher) lookAtFilters() {
	for index := range w.doubt {
		hooks := w.podHooks(index)
		if matches(w.cfg.Uplinks, w.known[index]) {
			hooks = []hook{w.uplinkHook(index)}
		}
		if err := w.change(func() error { return w.mendFilters(hooks...) }); err != nil {
			_ = w.change(func() error { return w.closePod(index) })
			w.breakLink(index, err)
		}
	}
	clear(w.doubt)
}

// isLocked tells whether a program of ours is on a pod's link.
func (w *watcher) isLocked(index int) (locked bool) {
	_ = w.change(func() error {
		locked = slices.ContainsFunc(w.podHooks(index), func(h hook) bool { on, err := w.live(h); return on && err == nil })
		return nil
	})
	return locked
}
