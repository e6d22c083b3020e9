// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hostLink finds the host side of the pod's link by asking the kernel, not
// the source: the interface inside the pod's namespace knows its peer.
func hostLink(netnsPath, name string) (int, error) {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return 0, fmt.Errorf("opening the pod's network namespace %s: %w", netnsPath, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE) // not of every family: a kernel may lack some
	if err != nil {
		return 0, fmt.Errorf("asking in the pod's network namespace: %w", err)
	}
	defer h.Close()
	guest, err := h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("finding %s in the pod's network namespace: %w", name, err)
	}
	peer := guest.Attrs().ParentIndex
	if peer == 0 {
		return 0, fmt.Errorf("finding the host side of %s: it has no peer (kind %s); only veth and netkit pods are supported", name, guest.Type())
	}
	host, err := netlink.LinkByIndex(peer)
	if err != nil {
		return 0, fmt.Errorf("finding the host side of %s, link %d: %w", name, peer, err)
	}
	// Numbers of links are each namespace's own, and whoever has CAP_NET_ADMIN in
	// the pod's chooses them there: what counts is the node's side of the pair.
	id, err := netlink.GetNetNsIdByFd(int(ns))
	if err != nil {
		return 0, fmt.Errorf("finding the pod's network namespace from the node's: %w", err)
	}
	if back := host.Attrs(); back.ParentIndex != guest.Attrs().Index || id < 0 || back.NetNsID != id {
		return 0, fmt.Errorf("link %s does not lead back to %s: its peer is link %d of namespace %d, expected %d of %d",
			back.Name, name, back.ParentIndex, back.NetNsID, guest.Attrs().Index, id)
	}
	return peer, nil
}
