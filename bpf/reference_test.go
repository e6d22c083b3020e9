// SPDX-License-Identifier: Apache-2.0

package bpf

import "net/netip"

// reading is what the reference parser makes of a frame. It is a second
// reading of RFC 791, 826, 768, 4861, 8200 and 9293, written without looking at
// the first and without its economies.
type reading struct {
	src, dst  netip.Addr
	proto     uint8
	neighbour *message
	transport []byte // what follows the IP header
	claimed   int    // how much that is, as the IP header says
	options   bool
	fragment  bool
	offset    int // of the fragment
}

// message is ARP or neighbour discovery.
type message struct {
	arp      bool
	kind     byte
	hopLimit byte
	target   netip.Addr
}

// readFrame reads link and network headers. Segments above 64 KiB say 0.
func readFrame(b []byte, segments bool) (reading, Reason) {
	payload := b[14:]
	switch be.Uint16(b[12:]) {
	case 0x8100, 0x88a8:
		return reading{}, ReasonVLAN
	case 0x0806:
		return readARP(payload)
	case 0x0800:
		return read4(payload, segments)
	case 0x86dd:
		return read6(payload, segments)
	}
	return reading{}, ReasonEthertype
}

func readARP(b []byte) (reading, Reason) {
	if len(b) < 28 || be.Uint16(b) != 1 || be.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return reading{}, ReasonMalformed
	}
	return reading{src: netip.AddrFrom4([4]byte(b[14:18])), dst: netip.AddrFrom4([4]byte(b[24:28])), neighbour: &message{arp: true}}, ReasonAllowed
}

func read4(b []byte, segments bool) (reading, Reason) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return reading{}, ReasonMalformed
	}
	head, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if total == 0 {
		total = head
		if segments {
			total += 65535
		}
	}
	if head < 20 || total < head {
		return reading{}, ReasonMalformed
	}
	flags := be.Uint16(b[6:])
	return reading{
		src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), proto: b[9],
		transport: b[min(head, len(b)):], claimed: total - head, options: head > 20,
		fragment: flags&0x2000 != 0 || flags&0x1fff != 0, offset: int(flags & 0x1fff),
	}, ReasonAllowed
}

func read6(b []byte, segments bool) (reading, Reason) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return reading{}, ReasonMalformed
	}
	r := reading{
		src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])),
		proto: b[6], transport: b[40:], claimed: int(be.Uint16(b[4:])),
	}
	if r.claimed == 0 && segments {
		r.claimed = 65535
	}
	if r.src.Is4In6() || r.dst.Is4In6() {
		return r, ReasonMalformed
	}
	if r.proto != 58 {
		return r, ReasonAllowed
	}
	if len(r.transport) < 8 {
		return r, ReasonMalformed
	}
	m := &message{kind: r.transport[0], hopLimit: b[7]}
	if m.kind < 133 || m.kind > 137 {
		return r, ReasonAllowed
	}
	r.neighbour = m
	if m.hopLimit != 255 {
		return r, ReasonNeighbourSpoof
	}
	if m.kind == 135 || m.kind == 136 {
		if len(r.transport) < 24 {
			return r, ReasonMalformed
		}
		m.target = netip.AddrFrom16([16]byte(r.transport[8:24]))
	}
	return r, ReasonAllowed
}

// speaksForThePod tells whether a neighbour message is the pod's to send.
func (r reading) speaksForThePod() bool {
	if r.neighbour.arp {
		return r.src == pod4 || r.src.IsUnspecified() && r.dst == pod4
	}
	own := func(a netip.Addr) bool { return a == pod6 || a.IsLinkLocalUnicast() }
	switch r.neighbour.kind {
	case 133:
		return own(r.src) || r.src.IsUnspecified()
	case 135:
		return own(r.src) || r.src.IsUnspecified() && own(r.neighbour.target)
	case 136:
		return own(r.src) && own(r.neighbour.target)
	}
	return false
}

// judgeTransport refuses whatever is not whole TCP, or UDP whole or in parts.
func (r reading) judgeTransport() Reason {
	if r.options {
		return ReasonIPOptions
	}
	if r.src.Is6() && r.proto == 44 {
		if r.claimed < 8 || len(r.transport) < 8 || r.transport[1] != 0 || r.transport[3]&6 != 0 {
			return ReasonMalformed
		}
		r.proto, r.fragment, r.offset = r.transport[0], true, int(be.Uint16(r.transport[2:])>>3)
		r.transport, r.claimed = r.transport[8:], r.claimed-8
	}
	if r.fragment && r.proto != 17 {
		return ReasonFragment
	}
	switch r.proto {
	case 6:
		if len(r.transport) < 20 {
			return ReasonMalformed
		}
		if head := int(r.transport[12]>>4) * 4; head < 20 || head > r.claimed {
			return ReasonMalformed
		}
		return ReasonAllowed
	case 17:
		return r.judgeDatagram()
	case 1, 58:
		return ReasonICMP
	case 0, 43, 60, 135:
		if r.src.Is6() {
			return ReasonExtensionHeader
		}
	}
	return ReasonProtocol
}

func (r reading) judgeDatagram() Reason {
	if r.offset > 0 {
		if r.claimed == 0 {
			return ReasonMalformed
		}
		return ReasonAllowed
	}
	if len(r.transport) < 8 || r.claimed < 8 {
		return ReasonMalformed
	}
	if n := int(be.Uint16(r.transport[4:])); n < 8 || !r.fragment && n > r.claimed {
		return ReasonMalformed
	}
	return ReasonAllowed
}

// beyondBurst reports whether a frame alone takes more room than a link may
// have at once. Of those that the tests can send this is only a first fragment,
// which counts as the largest datagram, in very many segments: the kernel makes
// none, but a pod that writes frames can.
func (r reading) beyondBurst(gsoSize uint16) bool {
	first := r.fragment && r.offset == 0
	if r.src.Is6() && r.proto == 44 {
		first = be.Uint16(r.transport[2:])>>3 == 0
	}
	return first && gsoSize != 0 && 2*65535+(1+65535/int(gsoSize))*768 > 2<<20
}

// referenceEgress judges a frame of the open pod, where the daemon listens and
// which has sent nothing before.
func referenceEgress(frame []byte, gsoSize uint16) (why Reason, captured bool) {
	r, why := readFrame(frame, gsoSize != 0)
	if why != ReasonAllowed {
		return why, false
	}
	if r.neighbour != nil {
		longest := 128
		if r.neighbour.arp {
			longest = 60
		}
		switch {
		case !r.speaksForThePod():
			return ReasonNeighbourSpoof, false
		case len(frame) > longest:
			return ReasonMalformed, false
		}
		return ReasonAllowed, false
	}
	if r.src != pod4 && r.src != pod6 {
		return ReasonSpoofedSource, false
	}
	if why := r.judgeTransport(); why != ReasonAllowed {
		return why, false
	}
	if r.dst.IsMulticast() || r.dst == broadcast4 || r.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return ReasonMulticast, false
	}
	if r.beyondBurst(gsoSize) {
		return ReasonDatagramRate, false
	}
	return ReasonAllowed, true
}

// referenceIngress judges a frame to the open pod, which has no probes.
func referenceIngress(frame []byte, segments bool, mark, ingress uint32) Reason {
	r, why := readFrame(frame, segments)
	switch {
	case why != ReasonAllowed:
		return why
	case r.neighbour != nil && (len(frame) > 128 || r.neighbour.arp && len(frame) > 60):
		return ReasonMalformed
	case r.neighbour != nil:
		return ReasonAllowed
	case ingress != 0:
		return ReasonForwardedToPod
	case r.dst != pod4 && r.dst != pod6:
		return ReasonNotForPod
	case mark&0x3000 != daemonMark:
		return ReasonNotFromDaemon
	}
	return ReasonAllowed
}
