// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// frame puts an IP packet into an Ethernet frame to the next hop.
func (f family) frame(t Target, build func(src, dst netip.Addr, data []byte) packet) runner {
	return func(_ context.Context, e Env) (Result, error) {
		p := build(f.src(e), f.dst(e, t), e.Canary)
		return f.sendFrame(e, p)
	}
}

func (f family) forgedFrame(_ context.Context, e Env) (Result, error) {
	return f.sendFrame(e, f.tcp(f.spoof(e), f.dst(e, Outside), e.Canary))
}

func (f family) sendFrame(e Env, p packet) (Result, error) {
	r := Result{Tried: fmt.Sprintf("Ethernet frame with a packet to %s", p.dst)}
	link, err := net.InterfaceByName(e.Interface)
	if err != nil {
		return r, fmt.Errorf("finding %s: %w", e.Interface, err)
	}
	hop, err := nextHop(link.Index, p.dst, e.Wait)
	if err != nil {
		return r, err
	}
	return send(link, r, ethernet(hop, link.HardwareAddr, f.etherType(), p.data))
}

// nextHop resolves the link-layer address of the gateway towards dst, or of
// dst itself where it is a neighbour.
func nextHop(ifindex int, dst netip.Addr, wait time.Duration) (net.HardwareAddr, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	defer h.Close()
	routes, err := h.RouteGet(dst.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, fmt.Errorf("looking up the route to %s: %w", dst, err)
	}
	hop := routes[0].Gw
	if hop == nil {
		hop = dst.AsSlice()
	}
	// NTF_USE makes the kernel resolve without sending a packet of ours.
	family := netlink.FAMILY_V6
	if dst.Is4() {
		family = netlink.FAMILY_V4
	}
	use := &netlink.Neigh{LinkIndex: ifindex, Family: family, IP: hop, State: netlink.NUD_NONE, Flags: netlink.NTF_USE}
	if err := h.NeighSet(use); err != nil {
		return nil, fmt.Errorf("asking for the neighbour %s: %w", hop, err)
	}
	for end := time.Now().Add(max(wait, time.Second)); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		neighs, err := h.NeighList(ifindex, family)
		if err != nil {
			continue // an interrupted dump; the loop looks at the clock
		}
		for _, n := range neighs {
			if n.IP.Equal(hop) && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
	}
	return nil, fmt.Errorf("resolving the neighbour %s: no answer", hop)
}

// send puts frames on the link as they are.
func send(link *net.Interface, r Result, frames ...[]byte) (Result, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return r, fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	for _, frame := range frames {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
			r.Refused = err
			return r, nil
		}
		r.Sent += len(frame)
	}
	return r, nil
}

var ( // constants in all but name
	broadcast = bytes.Repeat([]byte{0xff}, 6)
	allNodes  = netip.MustParseAddr("ff02::1")
)

// linkAttacks aim at the neighbours on the pod's own link.
func linkAttacks() []Attack {
	return []Attack{
		{"ethertype", "broadcast a frame of an unknown EtherType", Segment, ReasonEtherType, onLink("frame of EtherType 0x88b5", unknownFrame)},
		{"vlan", "broadcast a datagram in a VLAN-tagged frame", Segment, ReasonVLAN, onLink("VLAN-tagged frame", vlanFrame)},
		{"arp-spoof", "claim another pod's IPv4 address by ARP", Segment, ReasonNeighbourSpoof, onLink("forged ARP reply", arpFrame)},
		{"neighbour-spoof", "claim another pod's IPv6 address by neighbour advertisement", Segment, ReasonNeighbourSpoof, onLink("forged neighbour advertisement", advertisementFrame)},
		{"router-advertisement", "pose as the IPv6 router", Segment, ReasonNeighbourSpoof, onLink("forged router advertisement", routerFrame)},
	}
}

func onLink(words string, build func(e Env, mac []byte) []byte) runner {
	return func(_ context.Context, e Env) (Result, error) {
		r := Result{Tried: words}
		link, err := net.InterfaceByName(e.Interface)
		if err != nil {
			return r, fmt.Errorf("finding %s: %w", e.Interface, err)
		}
		return send(link, r, build(e, link.HardwareAddr))
	}
}

func unknownFrame(e Env, mac []byte) []byte {
	return ethernet(broadcast, mac, etherPrivate, e.Canary)
}

func vlanFrame(e Env, mac []byte) []byte {
	tagged := binary.BigEndian.AppendUint16([]byte{0, 5}, etherIPv4)
	return ethernet(broadcast, mac, etherVLAN, append(tagged, v4.udp(e.Src4, e.Peer4, e.Canary).data...))
}

// arpFrame is a gratuitous reply (RFC 826) with the canary as trailer.
func arpFrame(e Env, mac []byte) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, mac...), e.Spoof4.AsSlice()...)
	b = append(append(b, broadcast...), e.Spoof4.AsSlice()...)
	return ethernet(broadcast, mac, etherARP, append(b, e.Canary...))
}

// advertisementFrame is an unsolicited, overriding advertisement (RFC 4861, 4.4).
func advertisementFrame(e Env, mac []byte) []byte {
	b := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, e.Spoof6.AsSlice()...)
	b = append(append(b, 2, 1), mac...)
	return discovery(e, mac, e.Src6, b)
}

// routerFrame is a router advertisement (RFC 4861, 4.2) from a link-local
// address. Its router lifetime is 0, so that believing it does no harm.
func routerFrame(e Env, mac []byte) []byte {
	b := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = append(append(b, 1, 1), mac...)
	return discovery(e, mac, linkLocal(mac), b)
}

// discovery finishes an ICMPv6 message to all nodes; the canary hides in an
// option of the experimental type 253 (RFC 4727).
func discovery(e Env, mac []byte, src netip.Addr, b []byte) []byte {
	option := append([]byte{253, 0}, e.Canary...)
	for len(option)%8 != 0 {
		option = append(option, 0)
	}
	option[1] = byte(len(option) / 8)
	b = append(b, option...)
	binary.BigEndian.PutUint16(b[2:], transportChecksum(src, allNodes, protoICMPv6, b))
	p := ipv6(src, allNodes, protoICMPv6, b)
	p[7] = 255 // receivers ignore discovery that may have been forwarded
	return ethernet([]byte{0x33, 0x33, 0, 0, 0, 1}, mac, etherIPv6, p)
}

// linkLocal is the address a link forms from its MAC (RFC 4291, appendix A).
func linkLocal(mac []byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}
