// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
)

// EtherTypes and protocol numbers (IANA).
const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherQinQ  = 0x88a8
	protoHop   = 0
	protoTCP   = 6
	protoUDP   = 17
	protoRoute = 43
	protoFrag  = 44
	protoAH    = 51
	protoICMP6 = 58
	protoDest  = 60
)

// Bounds against crafted frames.
const (
	maxTags       = 4
	maxExtensions = 16
	maxFlows      = 1 << 16
)

// decoded is a frame's description and where its payload lies.
type decoded struct {
	Packet
	ok        bool // well-formed ARP, IPv4 or IPv6
	discovery bool // ARP, neighbour discovery or multicast listener messages
	payload   []byte
}

type flow struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        uint8
}

// decode never fails: what it does not understand it leaves out, and ok is false.
func decode(frame []byte) (d decoded) {
	if len(frame) < 14 {
		d.payload = frame
		return d
	}
	b := frame[12:]
	d.EtherType, b = binary.BigEndian.Uint16(b), b[2:]
	for range maxTags {
		if (d.EtherType != etherVLAN && d.EtherType != etherQinQ) || len(b) < 4 {
			break
		}
		d.VLAN = true
		d.EtherType, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	d.payload = b
	switch d.EtherType {
	case etherARP:
		d.ok, d.discovery = true, true
	case etherIPv4:
		d.ipv4(b)
	case etherIPv6:
		d.ipv6(b)
	}
	return d
}

func (d *decoded) ipv4(b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	header := int(b[0]&0x0f) * 4
	d.Src, d.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	d.Proto = b[9]
	if header < 20 || header > len(b) {
		return
	}
	// A length of 0 means a segment over 64 KiB (BIG TCP); less than the
	// frame means padding.
	if total := int(binary.BigEndian.Uint16(b[2:])); total >= header && total < len(b) {
		b = b[:total]
	}
	offset := binary.BigEndian.Uint16(b[6:])
	d.Fragment = offset&0x3fff != 0
	d.ok = true
	d.transport(b[header:], offset&0x1fff != 0)
}

func (d *decoded) ipv6(b []byte) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return
	}
	d.Src, d.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next := b[6]
	if length := int(binary.BigEndian.Uint16(b[4:])); length > 0 && length < len(b)-40 {
		b = b[:40+length]
	}
	b = b[40:]
	later := false
	for range maxExtensions {
		d.Proto = next
		size := 0
		switch next {
		case protoHop, protoRoute, protoDest:
			if len(b) < 8 {
				return
			}
			size = 8 * (int(b[1]) + 1)
		case protoAH:
			if len(b) < 8 {
				return
			}
			size = 4 * (int(b[1]) + 2)
		case protoFrag:
			if len(b) < 8 {
				return
			}
			size, d.Fragment = 8, true
			later = later || binary.BigEndian.Uint16(b[2:])&0xfff8 != 0
		default:
			d.ok = true
			d.transport(b, later)
			return
		}
		if size > len(b) {
			return
		}
		next, b = b[0], b[size:]
		if later { // what follows is the middle of something
			d.Proto, d.ok, d.payload = next, true, b
			return
		}
	}
}

func (d *decoded) transport(b []byte, later bool) {
	d.payload = b
	if later {
		return
	}
	switch d.Proto {
	case protoTCP:
		if len(b) < 20 {
			return
		}
		d.ports(b)
		if size := int(b[12]>>4) * 4; size >= 20 && size <= len(b) {
			d.payload = b[size:]
		}
	case protoUDP:
		if len(b) < 8 {
			return
		}
		d.ports(b)
		d.payload = b[8:]
	case protoICMP6:
		// Multicast listener 130-132 and 143, neighbour discovery 133-137.
		d.discovery = len(b) >= 4 && d.EtherType == etherIPv6 && !d.Fragment && (b[0] >= 130 && b[0] <= 137 || b[0] == 143)
	}
}

func (d *decoded) ports(b []byte) {
	d.SrcPort, d.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

// add accounts for one frame whose real length is length.
func (c *Capture) add(frame []byte, length, ifindex int, now time.Time) {
	d := decode(frame)
	d.Time, d.Ifindex, d.Length = now, ifindex, length
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.report
	r.Packets++
	r.Bytes += uint64(length)
	if length > len(frame) {
		r.Truncated++
	}
	tunnel := d.Proto == protoTCP && (d.SrcPort == c.opts.TunnelPort || d.DstPort == c.opts.TunnelPort)
	switch {
	case tunnel:
		r.Tunnel++
	case !d.discovery && (c.isPod(d.Src) || c.isPod(d.Dst)):
		r.PlainPackets++
		r.Plain = c.keep(r.Plain, d.Packet)
	}
	if !d.ok {
		r.UnknownPackets++
		r.Unknown = c.keep(r.Unknown, d.Packet)
	}
	if c.hasCanary(frame, d) {
		r.CanaryHits++
		r.Canaries = c.keep(r.Canaries, d.Packet)
	}
	if c.pcap != nil {
		if err := c.pcap.write(frame, length, now); err != nil {
			r.Err, c.pcap = err, nil
		}
	}
}

func (c *Capture) isPod(a netip.Addr) bool {
	for _, p := range c.opts.Pods {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *Capture) keep(list []Packet, p Packet) []Packet {
	if len(list) < c.opts.Keep {
		list = append(list, p)
	}
	return list
}

// hasCanary searches the frame, and the seam between this payload and the
// flow's previous one, since a stream may be cut anywhere.
func (c *Capture) hasCanary(frame []byte, d decoded) bool {
	k := len(c.opts.Canary)
	if k == 0 {
		return false
	}
	if bytes.Contains(frame, c.opts.Canary) {
		return true
	}
	if !d.Src.IsValid() || len(d.payload) == 0 {
		return false
	}
	f := flow{d.Src, d.Dst, d.SrcPort, d.DstPort, d.Proto}
	tail, known := c.tails[f]
	seam := append(append([]byte(nil), tail...), d.payload[:min(k-1, len(d.payload))]...)
	if !known && len(c.tails) >= maxFlows {
		clear(c.tails) // forgets seams only, whole canaries are still found
	}
	if len(d.payload) >= k-1 {
		c.tails[f] = append(tail[:0], d.payload[len(d.payload)-(k-1):]...)
	} else {
		c.tails[f] = append([]byte(nil), seam[max(0, len(seam)-(k-1)):]...)
	}
	return bytes.Contains(seam, c.opts.Canary)
}
