// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// dialOutside connects from the node's own address, as any of its processes
// would. The socket does not carry the daemon's mark: with it the kernel would
// let it reach pods of this node.
func dialOutside(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: tunnel.KeepAlive(), Control: func(_, _ string, raw syscall.RawConn) error {
		if network != "tcp" {
			return nil
		}
		return tunnel.Control(raw, "")
	}}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, dst.String())
}

// ownAddr reports whether a packet to addr would not leave the node as it is:
// it is an address of the node itself, whichever link has it, or a broadcast.
// The kernel's routes decide; where it does not answer, it is one.
func ownAddr(addr netip.Addr) bool {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil {
		return !unroutable(err)
	}
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			return true
		}
	}
	return len(routes) == 0
}

// unroutable: without a route there is nothing to reach, here neither.
func unroutable(err error) bool {
	switch err { //nolint:errorlint // netlink gives a bare errno
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL:
		return true
	}
	return false
}
