// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The address plan. Labs do not share a network, so all use the same one.
//
//	underlay      10.80.0.0/24   fd80::/64       node n: 10.80.0.n, fd80::n
//	outside host  10.80.0.200+n  fd80::(200+n)   (n in hexadecimal for IPv6)
//	edge          10.80.0.254    fd80::fe        everyone's default gateway; drops
//	pods of n     10.81.n.0/24   fd81:n::/64   (many: 10.(100+n).0.0/16)
//	  bridged     lower half, gateway .1 and ::1 on cni0
//	  routed      upper half, gateway 169.254.1.1 and fe80::1 on each host link
const (
	outsideBase = 200
	edgeNumber  = 254
	// manyBase plus the node's number is the second byte of a range for many pods.
	manyBase = 100
)

var ( // constants in all but name
	underlay4 = netip.MustParsePrefix("10.80.0.0/24")
	underlay6 = netip.MustParsePrefix("fd80::/64")
	gateway4  = netip.MustParseAddr("169.254.1.1")
	gateway6  = netip.MustParseAddr("fe80::1")
)

// Gateway4 is the IPv4 gateway of routed pods.
func Gateway4() netip.Addr { return gateway4 }

func underlayAddrs(n int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 80, 0, byte(n)}), withLow(underlay6.Addr(), uint16(n))
}

func podCIDRs(node int, many bool) (v4, v6 netip.Prefix) {
	v4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 81, byte(node), 0}), 24)
	if many {
		v4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(manyBase + node), 0, 0}), 16)
	}
	a := netip.MustParseAddr("fd81::").As16()
	a[2], a[3] = byte(node>>8), byte(node)
	return v4, netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// maxPods is the number of pods of one kind that a range has addresses for.
func maxPods(v4 netip.Prefix) int { return 1<<(31-v4.Bits()) - 8 }

// half returns the lower (bridged) or upper (routed) half of a pod range.
func half(p netip.Prefix, kind Kind) netip.Prefix {
	b := p.Addr().AsSlice()
	if kind == Routed {
		b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits()+1)
}

// nth returns the n-th address of a range of at most 2¹⁶, 0 < n.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	low := b[len(b)-2:]
	binary.BigEndian.PutUint16(low, binary.BigEndian.Uint16(low)+uint16(n))
	a, _ := netip.AddrFromSlice(b)
	return a
}

func withLow(a netip.Addr, n uint16) netip.Addr {
	b := a.As16()
	b[14], b[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(b)
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addAddr adds an address that is usable at once (no duplicate detection).
func (ns *NS) addAddr(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := ns.handle.AddrAdd(link, a); err != nil {
		return fmt.Errorf("adding %s to %s in namespace %s: %w", p, link.Attrs().Name, ns.name, err)
	}
	return nil
}

// route is one route in words: to dst, optionally via a gateway, out of a
// link, preferring src. No link makes it answer "unreachable".
type route struct {
	dst  netip.Prefix
	via  netip.Addr
	link netlink.Link
	src  netip.Addr
}

func (ns *NS) addRoute(r route) error {
	nr := &netlink.Route{Dst: ipNet(r.dst)}
	if r.link == nil {
		nr.Type = unix.RTN_UNREACHABLE
	} else {
		nr.LinkIndex = r.link.Attrs().Index
	}
	if r.via.IsValid() {
		nr.Gw = r.via.AsSlice()
	} else if r.link != nil && r.dst.Addr().Is4() {
		nr.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		nr.Src = r.src.AsSlice()
	}
	if err := ns.handle.RouteReplace(nr); err != nil {
		return fmt.Errorf("adding a route to %s via %s in namespace %s: %w", r.dst, r.via, ns.name, err)
	}
	return nil
}

func defaultRoute(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
