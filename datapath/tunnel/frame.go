// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Frame types. A type that is not listed ends the tunnel.
const (
	typeOpen   = 0x01
	typeData   = 0x02
	typeFin    = 0x03
	typeRst    = 0x04
	typeRefuse = 0x05
	typeDgram  = 0x06
	typeReady  = 0x07
	typeRetire = 0x08
)

// Sizes of the wire format, in bytes.
const (
	headerLen = 4              // type and length
	maxData   = 1<<18 - 4      // largest DATA payload: header and payload fill 16 TLS records exactly
	openLen4  = 2 + 2*(4+2)    // OPEN payload between IPv4 addresses
	openLen6  = 2 + 2*(16+2)   // OPEN payload between IPv6 addresses
	rstLen    = 4 + 1          // RST payload
	refuseLen = 1              // REFUSE payload
	maxOpen   = headerLen + 38 // largest OPEN frame
	maxSmall  = openLen6       // largest payload that the decoder collects
)

// MaxDatagram is the largest DGRAM payload, in bytes: what UDP over IPv4
// carries.
const MaxDatagram = 65507

// Values of Header.Proto (IANA protocol numbers). A stream of UDP carries DGRAM
// frames, one of TCP DATA frames.
const (
	ProtoTCP = 6
	ProtoUDP = 17
)

// Header says which connection a stream carries.
type Header struct {
	Proto uint8
	Src   netip.AddrPort // the pod's own address and port
	Dst   netip.AddrPort // what the pod connected to
}

// ErrProtocol is wrapped by every error about bytes that the protocol does
// not allow at that point. The tunnel is closed then.
var ErrProtocol = errors.New("tunnel protocol violation")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

func putHeader(b []byte, typ byte, n int) {
	b[0], b[1], b[2], b[3] = typ, byte(n>>16), byte(n>>8), byte(n)
}

func validAddr(a netip.AddrPort) bool {
	return a.Addr().IsValid() && !a.Addr().Is4In6() && a.Addr().Zone() == "" && !a.Addr().IsUnspecified()
}

func (h Header) check() error {
	switch {
	case h.Proto != ProtoTCP && h.Proto != ProtoUDP:
		return violation("OPEN for protocol %d", h.Proto)
	case !validAddr(h.Src) || !validAddr(h.Dst) || h.Dst.Port() == 0:
		return violation("OPEN with an unusable address (%s to %s)", h.Src, h.Dst)
	case h.Src.Addr().Is4() != h.Dst.Addr().Is4():
		return violation("OPEN mixes address families (%s to %s)", h.Src, h.Dst)
	}
	return nil
}

// appendOpen appends a whole OPEN frame.
func appendOpen(b []byte, h Header) []byte {
	n, family := openLen6, byte(6)
	if h.Src.Addr().Is4() {
		n, family = openLen4, 4
	}
	b = append(b, typeOpen, 0, 0, byte(n), h.Proto, family)
	for _, a := range [...]netip.AddrPort{h.Src, h.Dst} {
		b = append(b, a.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, a.Port())
	}
	return b
}

func parseOpen(p []byte) (Header, error) {
	size := 16
	switch {
	case len(p) == openLen4 && p[1] == 4:
		size = 4
	case len(p) == openLen6 && p[1] == 6:
	default:
		return Header{}, violation("OPEN of %d bytes", len(p))
	}
	h := Header{Proto: p[0]}
	p = p[2:]
	for _, a := range [...]*netip.AddrPort{&h.Src, &h.Dst} {
		addr, _ := netip.AddrFromSlice(p[:size])
		*a = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(p[size:]))
		p = p[size+2:]
	}
	return h, h.check()
}

func appendRst(b []byte, seq uint32, r Reason) []byte {
	b = append(b, typeRst, 0, 0, rstLen)
	return append(binary.BigEndian.AppendUint32(b, seq), byte(r))
}

// event is one decoded step: a control frame, or a piece of a DATA or DGRAM
// frame.
type event struct {
	typ    byte
	data   []byte // of DATA: a non-empty piece of the payload; of DGRAM: a piece
	more   int    // of DGRAM: bytes of the datagram still to come after data
	header Header // of OPEN
	seq    uint32 // of RST
	reason Reason // of RST and REFUSE
}

// decoder cuts a byte stream into events. It keeps at most one control frame,
// so memory does not depend on what the peer announces.
type decoder struct {
	buf  [headerLen + maxSmall]byte
	n    int // bytes in buf
	left int // payload bytes of the current DATA or DGRAM frame still to come
}

// next consumes bytes of p. ok is false when p held no complete event; rest
// is empty then.
func (d *decoder) next(p []byte) (ev event, rest []byte, ok bool, err error) {
	if d.left > 0 && len(p) > 0 {
		n := min(d.left, len(p))
		d.left -= n
		ev := event{typ: d.buf[0], data: p[:n]}
		if ev.typ == typeDgram {
			ev.more = d.left
		}
		return ev, p[n:], true, nil
	}
	for len(p) > 0 {
		want := headerLen
		if d.n >= headerLen {
			want += int(d.buf[3])
		}
		n := copy(d.buf[d.n:want], p)
		d.n += n
		p = p[n:]
		if d.n < want {
			return event{}, nil, false, nil
		}
		if want == headerLen {
			if err := d.header(); err != nil {
				return event{}, nil, false, err
			}
			if d.left > 0 {
				d.n = 0
				return d.next(p)
			}
			if d.buf[3] != 0 {
				continue
			}
		}
		ev, err := d.control()
		d.n = 0
		return ev, p, err == nil, err
	}
	return event{}, nil, false, nil
}

// header judges a complete frame header: known type, length that fits it.
func (d *decoder) header() error {
	n := int(d.buf[1])<<16 | int(d.buf[2])<<8 | int(d.buf[3])
	fits := false
	switch d.buf[0] {
	case typeOpen:
		fits = n == openLen4 || n == openLen6
	case typeData:
		fits = n > 0 && n <= maxData
		d.left = n
	case typeDgram:
		fits = n <= MaxDatagram
		d.left = n
	case typeFin, typeReady, typeRetire:
		fits = n == 0
	case typeRst:
		fits = n == rstLen
	case typeRefuse:
		fits = n == refuseLen
	default:
		return violation("frame type %#02x", d.buf[0])
	}
	if !fits {
		d.left = 0
		return violation("frame type %#02x of %d bytes", d.buf[0], n)
	}
	return nil
}

func (d *decoder) control() (event, error) {
	ev := event{typ: d.buf[0]}
	p := d.buf[headerLen:d.n]
	var err error
	switch ev.typ {
	case typeOpen:
		ev.header, err = parseOpen(p)
	case typeRst:
		ev.seq, ev.reason = binary.BigEndian.Uint32(p), Reason(p[4])
	case typeRefuse:
		ev.reason = Reason(p[0])
	}
	return ev, err
}

// midFrame reports whether the stream stopped inside a frame.
func (d *decoder) midFrame() bool { return d.n > 0 || d.left > 0 }
