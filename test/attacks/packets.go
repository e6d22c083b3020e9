// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers and EtherTypes (IANA).
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDestOpts = 60

	etherIPv4    = 0x0800
	etherARP     = 0x0806
	etherVLAN    = 0x8100
	etherIPv6    = 0x86dd
	etherPrivate = 0x88b5 // IEEE 802 local experimental
)

const hopLimit = 64

// packet is an IP packet and where it goes.
type packet struct {
	dst  netip.Addr
	data []byte
}

func (f family) etherType() uint16 {
	if f == v4 {
		return etherIPv4
	}
	return etherIPv6
}

// ip builds a whole packet.
func (f family) ip(src, dst netip.Addr, proto uint8, payload []byte) packet {
	if f == v4 {
		return packet{dst, ipv4(src, dst, proto, 0, payload)}
	}
	return packet{dst, ipv6(src, dst, proto, payload)}
}

// ipv4 builds a packet; fragment holds flags and offset as on the wire.
func ipv4(src, dst netip.Addr, proto uint8, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0xc85)
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = hopLimit, proto
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

func ipv6(src, dst netip.Addr, next uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, hopLimit
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

func (f family) udp(src, dst netip.Addr, data []byte) packet {
	return f.ip(src, dst, protoUDP, udpDatagram(src, dst, data))
}

func udpDatagram(src, dst netip.Addr, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, sourcePort)
	binary.BigEndian.PutUint16(b[2:], VictimPort)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[6:], transportChecksum(src, dst, protoUDP, b))
	return b
}

// tcp builds a data segment (PSH, ACK) outside any connection.
func (f family) tcp(src, dst netip.Addr, data []byte) packet {
	return f.ip(src, dst, protoTCP, tcpSegment(src, dst, data))
}

func tcpSegment(src, dst netip.Addr, data []byte) []byte {
	b := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(b, sourcePort)
	binary.BigEndian.PutUint16(b[2:], VictimPort)
	binary.BigEndian.PutUint32(b[4:], 1)
	binary.BigEndian.PutUint32(b[8:], 1)
	b[12], b[13] = 5<<4, 0x18
	binary.BigEndian.PutUint16(b[14:], 0xffff)
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[16:], transportChecksum(src, dst, protoTCP, b))
	return b
}

// fragments cuts a datagram or a segment in two, each with the whole data.
func (f family) fragments(proto uint8, src, dst netip.Addr, data []byte) []packet {
	whole := udpDatagram
	if proto == protoTCP {
		whole = tcpSegment
	}
	head := len(whole(src, dst, nil))
	part := append([]byte(nil), data...)
	for (head+len(part))%8 != 0 { // where fragments may end
		part = append(part, '.')
	}
	b, cut := whole(src, dst, append(append([]byte(nil), part...), part...)), head+len(part)
	if f == v4 {
		const more = 0x2000
		return []packet{
			{dst, ipv4(src, dst, proto, more, b[:cut])},
			{dst, ipv4(src, dst, proto, uint16(cut/8), b[cut:])},
		}
	}
	return []packet{
		{dst, ipv6(src, dst, protoFragment, fragmentHeader(proto, 0, true, b[:cut]))},
		{dst, ipv6(src, dst, protoFragment, fragmentHeader(proto, cut, false, b[cut:]))},
	}
}

func fragmentHeader(proto uint8, offset int, more bool, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	b[0] = proto
	word := uint16(offset) // in units of 8 bytes, shifted left by 3: the same number
	if more {
		word |= 1
	}
	binary.BigEndian.PutUint16(b[2:], word)
	binary.BigEndian.PutUint32(b[4:], 0xc85)
	return append(b, payload...)
}

// echoRequest builds an ICMP or ICMPv6 echo request.
func (f family) echoRequest(src, dst netip.Addr, data []byte) []byte {
	b := append([]byte{8, 0, 0, 0, 0x0c, 0x85, 0, 1}, data...)
	if f == v4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return b
	}
	b[0] = 128
	binary.BigEndian.PutUint16(b[2:], transportChecksum(src, dst, protoICMPv6, b))
	return b
}

func ethernet(dst, src []byte, etherType uint16, payload []byte) []byte {
	b := append(append(make([]byte, 0, 14+len(payload)), dst...), src...)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

// checksum is the Internet checksum (RFC 1071) over data whose checksum field is zero.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts { // all parts but the last have even length
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// transportChecksum includes the pseudo header (RFC 9293, RFC 8200). Both
// versions' pseudo headers add up alike.
func transportChecksum(src, dst netip.Addr, proto uint8, segment []byte) uint16 {
	tail := []byte{0, 0, 0, 0, 0, 0, 0, proto}
	binary.BigEndian.PutUint32(tail, uint32(len(segment)))
	return checksum(src.AsSlice(), dst.AsSlice(), tail, segment)
}
