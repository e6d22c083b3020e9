// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// Kinds of LinkEvent.
const (
	LinkLocked = "locked"
	LinkGone   = "gone"
	LinkFailed = "failed"
)

// LinkEvent is something that happened to a pod link.
type LinkEvent struct {
	Kind    string
	Name    string
	Ifindex int
	Err     error // of LinkFailed
}

// relistInterval is how often links whose lock failed are tried again.
const relistInterval = time.Second

// linkBuffer is the receive buffer for link updates, in bytes.
const linkBuffer = 4 << 20

// watcher is one run of WatchLinks.
type watcher struct {
	*Loader
	report func(LinkEvent)
	known  map[int]string // names of locked links and guarded uplinks
	failed map[int]bool
	await  map[int]int  // new links that will be announced: ticks that are left
	doubt  map[int]bool // links whose filters somebody changed
}

// awaitTicks of relistInterval is how long a new link waits to be announced.
const awaitTicks = 2

// WatchLinks locks every pod link (veth or netkit, neither uplink nor
// excluded) there is and every one that comes, and reports it, until ctx ends.
// As long as new links come to LockNew it leaves them up to two seconds for
// that, so as not to hold up those who still set them up. It guards uplinks
// that appear and forgets links that go.
func (l *Loader) WatchLinks(ctx context.Context, report func(LinkEvent)) error {
	w := &watcher{l, report, map[int]string{}, map[int]bool{}, map[int]int{}, map[int]bool{}}
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watching links: %w", err)
		}
		l.log.Warn("link updates were lost; listing all links again")
	}
}

// run watches until something fails. It hears updates before it lists, so
// that no link falls between the two.
func (w *watcher) run(ctx context.Context) error {
	socket, err := w.ns.subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	updates, received := receive(ctx, socket)
	defer func() { cancel(); socket.Close(); <-received }()
	if err := socket.SetReceiveBufferSize(linkBuffer, true); err != nil {
		w.log.Debug("enlarging the netlink buffer", "err", err)
	}
	if err := w.list(); err != nil {
		return err
	}
	retry := time.NewTicker(relistInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-updates:
			if u.err != nil {
				return u.err
			}
			for _, m := range u.messages {
				w.handle(m)
			}
			w.lookAtFilters()
		case <-retry.C:
			if err := w.mendAll(); err != nil {
				return err
			}
			w.overdue()
			if len(w.failed) == 0 {
				continue
			}
			if err := w.list(); err != nil {
				w.log.Warn("listing links again", "err", err)
			}
		}
	}
}

type update struct {
	messages []syscall.NetlinkMessage
	err      error
}

// receive hands on messages until ctx ends or an error was handed on; then
// done closes. Closing the socket wakes it.
func receive(ctx context.Context, socket *nl.NetlinkSocket) (_ <-chan update, done <-chan struct{}) {
	updates, ended := make(chan update), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			messages, from, err := socket.Receive()
			if err == nil && from.Pid != 0 {
				continue // not from the kernel
			}
			select {
			case updates <- update{messages, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return updates, ended
}

func (w *watcher) list() error {
	links, err := w.listLinks()
	if err != nil {
		return err
	}
	clear(w.await)
	for index := range w.known {
		w.doubt[index] = true
	}
	defer w.lookAtFilters()
	here := map[int]bool{}
	for _, link := range links {
		here[link.Attrs().Index] = true
		w.seen(link)
	}
	// What the pins and maps still know but has gone meanwhile.
	stale, err := w.pins.locked()
	if err != nil {
		return err
	}
	for ifindex := range w.known {
		stale[ifindex] = true
	}
	if err := w.change(func() error { return w.podIndexes(stale) }); err != nil {
		return err
	}
	for ifindex := range stale {
		if !here[ifindex] {
			w.gone(ifindex)
		}
	}
	return nil
}

func (w *watcher) handle(m syscall.NetlinkMessage) {
	if w.handleFilter(m) {
		return
	}
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return
	}
	info := nl.DeserializeIfInfomsg(m.Data)
	// The bridge sends updates of its own about ports that stay.
	if info.Family != unix.AF_UNSPEC {
		return
	}
	if m.Header.Type == unix.RTM_DELLINK {
		w.gone(int(info.Index))
		return
	}
	link, err := netlink.LinkDeserialize((*unix.NlMsghdr)(&m.Header), m.Data)
	if err != nil {
		w.log.Error("parsing a link update", "ifindex", info.Index, "err", err)
		w.failed[int(info.Index)] = true
		return
	}
	if _, waits := w.await[int(info.Index)]; !waits && w.announced.Load() && w.isPodLink(link) && w.known[int(info.Index)] == "" {
		w.await[int(info.Index)] = awaitTicks
	}
	w.seen(link)
}

// overdue finds locked what somebody announced, and locks the rest: then links
// that come are locked at birth again, until the next is announced.
func (w *watcher) overdue() {
	for index, left := range w.await {
		if w.await[index] = left - 1; left > 1 {
			continue
		}
		delete(w.await, index)
		if !w.isLocked(index) {
			w.announced.Store(false)
		}
		if link, err := w.nl.LinkByIndex(index); err == nil {
			w.seen(link)
		} else if !errors.As(err, new(netlink.LinkNotFoundError)) {
			w.failed[index] = true // all are listed again
		}
	}
}

// seen treats a link that exists.
func (w *watcher) seen(link netlink.Link) {
	index, name := link.Attrs().Index, link.Attrs().Name
	_, awaited := w.await[index]
	var err error
	switch {
	case matches(w.cfg.Uplinks, name):
		if w.known[index] != "" {
			return
		}
		if err = w.change(func() error { return w.guardUplink(index) }); err == nil {
			w.known[index] = name
		}
	case link.Type() == "bridge":
		err = w.change(func() error { return w.refreshMaster(link) })
	case w.isPodLink(link) && w.known[index] == "" && !awaited:
		if err = w.change(func() error { return w.lockOrClose(index) }); err == nil {
			w.known[index] = name
			w.report(LinkEvent{Kind: LinkLocked, Name: name, Ifindex: index})
		}
		fallthrough
	case w.isPodLink(link):
		err = errors.Join(err, w.change(func() error { return w.refreshPort(link) }))
	}
	if err == nil {
		delete(w.failed, index)
		return
	}
	if _, gone := w.nl.LinkByIndex(index); errors.As(gone, new(netlink.LinkNotFoundError)) {
		return // an update says so soon
	}
	if !w.failed[index] {
		w.failed[index] = true
		w.report(LinkEvent{Kind: LinkFailed, Name: name, Ifindex: index, Err: err})
	}
}

// gone forgets a link, unless a new one has its number already.
func (w *watcher) gone(ifindex int) {
	delete(w.failed, ifindex)
	delete(w.await, ifindex)
	if _, err := w.nl.LinkByIndex(ifindex); err == nil {
		return
	}
	if err := w.change(func() error { return w.forget(ifindex) }); err != nil {
		w.log.Error("forgetting a link", "ifindex", ifindex, "err", err)
	}
	name, ok := w.known[ifindex]
	delete(w.known, ifindex)
	if ok && !matches(w.cfg.Uplinks, name) {
		w.report(LinkEvent{Kind: LinkGone, Name: name, Ifindex: ifindex})
	}
}

// podIndexes adds the links that the pods map has entries for, or that are
// held.
func (l *Loader) podIndexes(set map[int]bool) error {
	var index uint32
	var pod bpf.Pod
	all := l.objs.Pods.Iterate()
	for all.Next(&index, &pod) {
		set[int(index)] = true
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("listing the pods: %w", err)
	}
	for name := range l.held {
		if _, ifindex := parseLinkName(name); ifindex != 0 {
			set[ifindex] = true
		}
	}
	return nil
}

func (l *Loader) isPodLink(link netlink.Link) bool {
	return isPair(link) && !matches(l.cfg.Uplinks, link.Attrs().Name) && !matches(l.cfg.ExcludeLinks, link.Attrs().Name)
}

func isPair(link netlink.Link) bool { return link.Type() == "veth" || link.Type() == "netkit" }

// matches tells whether a link's name is listed, by itself or by a pattern.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return p == name || ok && err == nil
	})
}
