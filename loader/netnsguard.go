// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// ownNetns keeps processes outside the pod's cgroup from making IP sockets in
// the pod's network namespace. Where the node has no cgroup2 hierarchy there
// is nothing to tell processes by: the pod opens without this guard.
func (l *Loader) ownNetns(p Pod, cookie uint64) error {
	if p.Cgroup == "" || cookie == 0 {
		return errors.Join(l.disownNetns(p.Ifindex, 0), l.releaseCgroups(p.Ifindex, 0))
	}
	tree, err := findCgroups()
	if err != nil {
		l.unguarded.Do(func() {
			l.log.Warn("processes of the node can make sockets in the network namespaces of pods (kubectl port-forward works)", "err", err)
		})
		return errors.Join(l.disownNetns(p.Ifindex, 0), l.releaseCgroups(p.Ifindex, 0))
	}
	cgroup := slicePath(p.Cgroup)
	id, dir, err := tree.lookup(cgroup)
	if err != nil && !p.Open {
		return nil // it has ended, or has not begun: nothing passes its link
	}
	if err != nil {
		return fmt.Errorf("looking up the pod's cgroup %s: %w", cgroup, err)
	}
	shared, err := tree.holds(dir, "/proc/self")
	if err != nil {
		return err
	}
	if shared {
		return fmt.Errorf("the pod's cgroup %s also holds this daemon, so it is not the pod's own", cgroup)
	}
	if err := errors.Join(l.attachNetnsGuard(tree), l.restrictCgroup(p, id)); err != nil {
		return err
	}
	if err := l.objs.NetnsOwners.Put(cookie, bpf.NetnsOwner{Cgroup: id, Ifindex: uint32(p.Ifindex)}); err != nil {
		return fmt.Errorf("guarding the pod's network namespace: %w", err)
	}
	return l.disownNetns(p.Ifindex, cookie)
}

// disownNetns forgets the namespaces of a link's pods but the one to keep.
func (l *Loader) disownNetns(ifindex int, keep uint64) error {
	stale, err := pick(l.objs.NetnsOwners, func(cookie uint64, owner bpf.NetnsOwner) bool {
		return int(owner.Ifindex) == ifindex && cookie != keep
	})
	if err != nil {
		return fmt.Errorf("listing the guarded network namespaces: %w", err)
	}
	for _, cookie := range stale {
		if err := l.objs.NetnsOwners.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("no longer guarding a network namespace: %w", err)
		}
	}
	return nil
}

// updateNetnsGuard replaces the program of a guard that an earlier process
// attached. A new one is attached only for the first pod with a cgroup, since
// it runs for every socket of the node.
func (l *Loader) updateNetnsGuard() error {
	old, err := l.pinned(progNetns)
	if err != nil || old == nil {
		return err
	}
	// ENOLINK: its cgroup has gone, and with it all that it was for.
	if err := old.Update(l.objs.NetnsGuard); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("replacing %s in place: %w (the old program stays)", progNetns, err)
	}
	return nil
}

// attachNetnsGuard puts netns_guard on the root of the hierarchy, unless the
// pinned one is there.
func (l *Loader) attachNetnsGuard(tree cgroups) error {
	old, err := l.pinned(progNetns)
	if err != nil {
		return err
	}
	if old != nil {
		info, err := old.Info()
		if err != nil {
			return fmt.Errorf("reading the pinned link of %s: %w", progNetns, err)
		}
		if c := info.Cgroup(); c != nil && c.CgroupId == tree.id {
			return nil
		}
	}
	lnk, err := link.AttachCgroup(link.CgroupOptions{Path: tree.dir, Attach: ebpf.AttachCGroupInetSockCreate, Program: l.objs.NetnsGuard})
	if err != nil {
		return fmt.Errorf("attaching %s to the cgroup %s: %w", progNetns, tree.dir, err)
	}
	if err := l.pinAndHold(progNetns, lnk); err != nil {
		return err
	}
	if tree.id != rootCgroup {
		l.log.Warn("the cgroup root of this process is not the machine's: processes outside it can make sockets in pods", "root", tree.dir)
	}
	return nil
}

// rootCgroup is the id of the machine's root cgroup: the first of its file
// system.
const rootCgroup = 1
