// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
)

// uplinkOf names the link that has the node's address: without --uplink it is
// the one that leads out of the node.
func uplinkOf(addr netip.Addr) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("finding the node's uplink: %w", err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			continue // it is gone already
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr.Unmap() {
				return link.Name, nil
			}
		}
	}
	return "", fmt.Errorf("finding the node's uplink: no link has the node's address %s; name the links that lead out of the node with --uplink", addr)
}
