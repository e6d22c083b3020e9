// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// PodLink is the link of a pod in which nothing runs yet.
type PodLink struct {
	// Ifindex is the host side.
	Ifindex int
	// NetnsPath and GuestInterface say where the pod's own side is.
	NetnsPath, GuestInterface string
}

// LockNew refuses everything on a new pod's link, as LockLink does, and does
// not make the pod wait for what makes that last.
//
// Attaching a tcx program takes a grace period of the kernel's RCU, 6 to 20
// milliseconds under the lock of all links: three programs are most of what a
// pod's start can bear. A clsact filter takes none. So filters lock the link
// before LockNew returns, and the tcx programs, which no tool of tc takes off,
// come before them while the runtime makes the sandbox. SetPod waits for them:
// a pod never opens on filters. The filters stay, as the second lock.
func (l *Loader) LockNew(ctx context.Context, pod PodLink) error {
	if err := l.begin(ctx); err != nil {
		return fmt.Errorf("locking link %d: %w", pod.Ifindex, err)
	}
	defer l.end()
	if err := l.lockFirst(pod.Ifindex); err != nil {
		return fmt.Errorf("locking link %d: %w", pod.Ifindex, err)
	}
	l.announced.Store(true)
	l.settling.Add(1)
	go l.settle(pod)
	return nil
}

// lockFirst locks a link by filters where filters are enough for now.
func (l *Loader) lockFirst(ifindex int) error {
	if !l.clsact && l.unused(ifindex) {
		return l.lockLinkBy(ifindex, l.attachFilter)
	}
	return l.lockLinkBy(ifindex, l.attach)
}

// unused tells whether filters alone can lock a link: tcx programs of others
// run before filters and may have the last word, and a qdisc of others leaves
// no room for ours.
func (l *Loader) unused(ifindex int) bool {
	qdiscs, err := l.nl.QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}})
	if err != nil || slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Attrs().Parent == netlink.HANDLE_CLSACT }) {
		return false
	}
	return l.ns.do(func() error {
		for _, h := range l.podHooks(ifindex) {
			found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: h.attachType()})
			if err != nil {
				return err
			}
			if len(found.Programs) > 0 {
				return errors.New("there are programs")
			}
		}
		return nil
	}) == nil
}

// attachFilter attaches a filter where tcx programs are what lasts.
func (l *Loader) attachFilter(h hook) error {
	if h.attachClsact() == nil {
		l.second[h.name] = true
		return nil
	}
	return l.attach(h) // the kernel may lack the filter
}

// settle makes the lock of a new link last, one program after the other, so
// that other pods' locks find their way in between. SetPod repeats what fails
// here, and says why.
func (l *Loader) settle(pod PodLink) {
	defer l.settling.Done()
	steps := make([]func() error, 0, 4)
	for _, h := range l.podHooks(pod.Ifindex) {
		steps = append(steps, func() error { return l.attach(h) })
	}
	steps = append(steps,
		func() error {
			_, err := l.guardPod(Pod{Ifindex: pod.Ifindex, NetnsPath: pod.NetnsPath, GuestInterface: pod.GuestInterface})
			return err
		})
	for _, step := range steps {
		if err := l.change(step); err != nil {
			l.log.Debug("making the lock of a new link last", "ifindex", pod.Ifindex, "err", err)
			return
		}
	}
}

// change does fn while nobody else changes links and pods.
func (l *Loader) change(fn func() error) error {
	if err := l.begin(context.Background()); err != nil {
		return err
	}
	defer l.end()
	return fn()
}
