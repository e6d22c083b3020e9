// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lockAgain puts the program on the hook a second time, as a filter below the
// tcx chain. It costs packets nothing, because the program ends the chain; and
// it needs neither a pin nor a process, but lives as long as the device. So
// the lock holds when somebody detaches the program, or removes the pins and
// kills the daemon. Where a qdisc of others leaves no room there is one lock.
//
// It waits for SetPod, or for LockNew at the end of the network's set-up: a
// clsact qdisc on a link that has just appeared is in the way of plugins that
// want an ingress qdisc there.
func (l *Loader) lockAgain(h hook) {
	if l.clsact || l.second[h.name] {
		return
	}
	l.second[h.name] = true
	if err := h.attachClsact(); err != nil {
		l.onlyOnce.Do(func() { l.log.Warn("links have no second lock", "first", h.name, "err", err) })
	}
}

// mendFilters puts the filters of a link back where they are missing or where
// others come before them.
func (l *Loader) mendFilters(hooks ...hook) error {
	for _, h := range hooks {
		if !l.clsact && !l.second[h.name] {
			continue
		}
		all, err := h.filters()
		if err == nil && len(all) > 0 && isOurs(all[0]) {
			continue
		}
		if err == nil {
			err = h.attachClsactFirst()
		}
		switch {
		case errors.Is(err, unix.ENODEV): // the device has gone, and with it all of this
		case err == nil:
			l.restored.programs.Add(1)
			l.log.Warn("somebody took a filter of the lock; it is back", "program", h.program, "ifindex", h.ifindex)
		case l.clsact:
			return err
		default:
			l.log.Debug("putting a second lock back", "program", h.program, "ifindex", h.ifindex, "err", err)
		}
	}
	return nil
}

// attachClsactFirst puts the filter before those of others. The newest is
// asked first, so one more is in front while ours is made new.
func (h hook) attachClsactFirst() error {
	ours, err := h.ours()
	if err != nil || len(ours) == 0 {
		return errors.Join(err, h.attachClsact())
	}
	aside := h.filter()
	aside.Handle = filterHandle + 1
	if err := h.nl.FilterReplace(aside); err != nil {
		return fmt.Errorf("putting %s before the filters of others: %w", h.program, err)
	}
	for _, f := range ours {
		if err := h.nl.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("putting %s before the filters of others: %w", h.program, err)
		}
	}
	if err := h.attachClsact(); err != nil {
		return err
	}
	return h.nl.FilterDel(aside)
}

func (h hook) filter() *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: h.ifindex, Parent: h.parent(), Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           h.prog.FD(),
		Name:         filterPrefix + h.program,
		DirectAction: true,
	}
}

// filters lists those on the hook, in the order they are asked. A device
// without clsact has none.
func (h hook) filters() ([]netlink.Filter, error) {
	all, err := h.nl.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: h.ifindex}}, h.parent())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the filters of device %d: %w", h.ifindex, err)
	}
	return all, nil
}

// ours lists our clsact filters on the hook.
func (h hook) ours() (found []netlink.Filter, err error) {
	all, err := h.filters()
	for _, f := range all {
		if isOurs(f) {
			found = append(found, f)
		}
	}
	return found, err
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && len(b.Name) > len(filterPrefix) && b.Name[:len(filterPrefix)] == filterPrefix
}
