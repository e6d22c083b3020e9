// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flags of an entry in a bridge's forwarding table (linux/neighbour.h).
const (
	ntfMaster = 0x04 // of the link's bridge
	ntfSticky = 0x40 // learning moves it to no other port
)

// keepMAC has the bridge of a pod's link send to the pod's MAC address through
// that link, whoever else sends from it. A bridge believes the last sender: a pod
// on it could otherwise cut off its neighbours by borrowing their addresses.
// What another port has for good, or the bridge itself, stays theirs.
func (l *Loader) keepMAC(host, guest netlink.Link) error {
	port, mac := host.Attrs(), guest.Attrs().HardwareAddr
	if port.MasterIndex == 0 || bytes.Equal(l.macs[port.Index], mac) {
		return nil
	}
	entry := &netlink.Neigh{LinkIndex: port.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: ntfMaster | ntfSticky, HardwareAddr: mac}
	err := l.nl.NeighAdd(entry)
	if errors.Is(err, unix.EEXIST) {
		if err = l.movable(port, entry); err == nil {
			err = l.nl.NeighSet(entry)
		}
	}
	if err != nil {
		return fmt.Errorf("keeping %s for %s: %w", mac, port.Name, err)
	}
	if before := l.macs[port.Index]; before != nil {
		_ = l.nl.NeighDel(&netlink.Neigh{LinkIndex: port.Index, Family: unix.AF_BRIDGE, Flags: ntfMaster, HardwareAddr: before})
	}
	l.macs[port.Index] = mac
	return nil
}

// movable refuses an address that is another's for good.
func (l *Loader) movable(port *netlink.LinkAttrs, entry *netlink.Neigh) error {
	all, err := l.nl.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("reading the forwarding table: %w", err)
	}
	for _, e := range all {
		if !bytes.Equal(e.HardwareAddr, entry.HardwareAddr) || e.MasterIndex != port.MasterIndex && e.LinkIndex != port.MasterIndex {
			continue
		}
		fixed := e.State&netlink.NUD_NOARP != 0 && e.LinkIndex != port.Index
		if e.State&netlink.NUD_PERMANENT != 0 || fixed {
			return fmt.Errorf("link %d has it", e.LinkIndex)
		}
	}
	return nil
}
