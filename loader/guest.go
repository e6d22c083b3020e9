// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// guardPod attaches pod_guard inside the pod's namespace and returns the
// namespace's cookie.
func (l *Loader) guardPod(p Pod) (uint64, error) {
	ns, err := openNS(p.NetnsPath)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	if ns.inode == l.ns.inode {
		return 0, fmt.Errorf("%s is the node's own network namespace", p.NetnsPath)
	}
	h, err := ns.netlink()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	guest, err := guestLink(h, p)
	if err != nil {
		return 0, err
	}
	host, err := l.leadsTo(p.Ifindex, guest, ns)
	if err != nil {
		return 0, err
	}
	if p.Open {
		if err := l.otherLinks(h, guest); err != nil {
			return 0, err
		}
		if err := l.keepMAC(host, guest); err != nil {
			l.log.Warn("a pod may cut another off the bridge", "err", err)
		}
	}
	guard := hook{progGuard, l.objs.PodGuard, linkName(progGuard, p.Ifindex), guest.Attrs().Index, false, ns, h}
	if err := l.attach(guard); err != nil {
		return 0, err
	}
	l.lockAgain(guard)
	l.guarded[p.Ifindex] = p
	return ns.cookie()
}

// guestLink finds the pod's side of its link: named, or the one whose peer is
// the host side.
func guestLink(h *netlink.Handle, p Pod) (netlink.Link, error) {
	if p.GuestInterface != "" {
		found, err := h.LinkByName(p.GuestInterface)
		if err != nil {
			return nil, fmt.Errorf("finding %s in the pod: %w", p.GuestInterface, err)
		}
		return found, nil
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the pod's links: %w", err)
	}
	for _, link := range links {
		if link.Attrs().ParentIndex == p.Ifindex && isPair(link) {
			return link, nil
		}
	}
	return nil, fmt.Errorf("the pod's namespace %s has no link to device %d of the node", p.NetnsPath, p.Ifindex)
}

// leadsTo asks the node's side of a link, which it returns, whether guest is its
// other. What the pod's namespace says of numbers is the pod's to choose.
func (l *Loader) leadsTo(ifindex int, guest netlink.Link, ns *netNS) (netlink.Link, error) {
	device, err := l.nl.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("finding the link: %w", err)
	}
	id, err := l.nl.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return nil, fmt.Errorf("looking for the pod's namespace from the node's: %w", err)
	}
	host := device.Attrs()
	if host.ParentIndex != guest.Attrs().Index || id < 0 || host.NetNsID != id {
		return nil, fmt.Errorf("%s leads to link %d of namespace %d, and not to %s, which is link %d of %d",
			host.Name, host.ParentIndex, host.NetNsID, guest.Attrs().Name, guest.Attrs().Index, id)
	}
	return device, nil
}

// otherLinks refuses a pod that has a way out beside its link, which no program
// of ours sees: a macvlan, a virtual function, a tunnel made in another
// namespace. Pairs with the node's namespace are let be: WatchLinks locks their
// other side. What leads nowhere, or through the pod's own link, is no way out.
func (l *Loader) otherLinks(h *netlink.Handle, guest netlink.Link) error {
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("listing the pod's links: %w", err)
	}
	here, err := h.GetNetNsIdByFd(int(l.ns.Fd()))
	if err != nil {
		return fmt.Errorf("looking for the node's namespace from the pod's: %w", err)
	}
	for _, link := range links {
		a := link.Attrs()
		if a.Index == guest.Attrs().Index || isPair(link) && a.NetNsID == here {
			continue
		}
		if leadsOut(link) {
			return fmt.Errorf("the pod has a second way out, %s (%s), which cannot be locked; attach pods to one network", a.Name, link.Type())
		}
	}
	return nil
}

// leadsOut tells whether a link of a pod ends in another namespace or on
// hardware. The kernel tells the namespace of every kind but WireGuard's.
func leadsOut(link netlink.Link) bool {
	hardware := link.Type() == "device" && link.Attrs().EncapType != "loopback"
	return link.Attrs().NetNsID >= 0 || hardware || link.Type() == "wireguard"
}
