// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

var be = binary.BigEndian

func ether(proto uint16, payload ...[]byte) []byte {
	b := be.AppendUint16([]byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 5}, proto)
	return append(b, slices.Concat(payload...)...)
}

// ip is an IPv4 or IPv6 frame, by the source's family.
func ip(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, proto
		be.PutUint16(h[2:], uint16(20+len(payload)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		return ether(0x0800, h, payload)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, proto, 255
	be.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return ether(0x86dd, h, payload)
}

func tcp() []byte {
	b := make([]byte, 20)
	be.PutUint16(b, 40000)
	be.PutUint16(b[2:], 80)
	b[12], b[13] = 5<<4, 2
	return b
}

// udp is a datagram from port 40000.
func udp(dport uint16, payload []byte) []byte {
	b := make([]byte, 8)
	be.PutUint16(b, 40000)
	be.PutUint16(b[2:], dport)
	be.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// fragment4 is a fragment of the pod's UDP over IPv4, offset in units of 8.
func fragment4(offset uint16, more bool, payload []byte) []byte {
	b := ip(pod4, other4, 17, payload)
	if more {
		offset |= 0x2000
	}
	be.PutUint16(b[20:], offset)
	return b
}

// fragment6 is a fragment of the pod's IPv6, offset in units of 8.
func fragment6(next uint8, offset uint16, more bool, payload []byte) []byte {
	h := []byte{next, 0, 0, 0, 0, 0, 0, 1}
	offset <<= 3
	if more {
		offset |= 1
	}
	be.PutUint16(h[2:], offset)
	return ip(pod6, other6, 44, append(h, payload...))
}

// segment is a TCP header with ports and flags.
func segment(sport, dport uint16, flags byte) []byte {
	b := with(tcp(), 13, flags)
	be.PutUint16(b, sport)
	be.PutUint16(b[2:], dport)
	return b
}

// with returns a copy of b with one byte changed.
func with(b []byte, at int, v byte) []byte {
	b = slices.Clone(b)
	b[at] = v
	return b
}

func arp(sender netip.Addr, trailer int) []byte { return arpAbout(sender, other4, trailer) }

func arpAbout(sender, target netip.Addr, trailer int) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 5}
	b = append(append(b, sender.AsSlice()...), 0, 0, 0, 0, 0, 0)
	return ether(0x0806, append(b, target.AsSlice()...), make([]byte, trailer))
}

// nd is a neighbour discovery message about target with trailing bytes.
func nd(kind byte, src, target netip.Addr, trailer int) []byte {
	b := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return ip(src, netip.MustParseAddr("ff02::1"), 58, append(b, make([]byte, trailer)...))
}
