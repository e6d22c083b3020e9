// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// InstallBroadcasts tells the programs the IPv4 broadcast addresses of the
// node. Routing keeps them current; in the moment between a new network of the
// node and that, the nftables table refuses them.
func (l *Loader) InstallBroadcasts() error {
	if err := l.begin(context.Background()); err != nil {
		return fmt.Errorf("listing the broadcast addresses: %w", err)
	}
	defer l.end()
	return l.installBroadcasts()
}

func (l *Loader) installBroadcasts() error {
	routes, err := l.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("listing the broadcast addresses: %w", err)
	}
	current := map[uint32]bool{}
	for _, r := range routes {
		if r.Type == unix.RTN_BROADCAST && r.Dst != nil && r.Dst.IP.To4() != nil {
			current[binary.NativeEndian.Uint32(r.Dst.IP.To4())] = true
		}
	}
	var addr, one uint32
	var stale []uint32
	known := l.objs.Broadcasts.Iterate()
	for known.Next(&addr, &one) {
		if current[addr] {
			delete(current, addr)
		} else {
			stale = append(stale, addr)
		}
	}
	if err := known.Err(); err != nil {
		return fmt.Errorf("reading the broadcast addresses: %w", err)
	}
	for addr := range current {
		if err := l.objs.Broadcasts.Put(addr, uint32(1)); err != nil {
			return fmt.Errorf("writing a broadcast address: %w", err)
		}
	}
	for _, addr := range stale {
		if err := l.objs.Broadcasts.Delete(addr); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting a broadcast address: %w", err)
		}
	}
	return nil
}
