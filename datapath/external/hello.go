// SPDX-License-Identifier: Apache-2.0

package external

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// MaxHello is the most that a ClientHello may take, with its record headers.
// Those of browsers with post-quantum key shares have about 2 KiB.
const MaxHello = 16 << 10

// ErrNotHello is wrapped by all that a Hello cannot be.
var ErrNotHello = errors.New("not a TLS ClientHello")

// Hello reads a TLS ClientHello as its bytes come (RFC 8446 sections 4.1.2 and
// 5.1). The zero value has read nothing. After an error it is of no use.
type Hello struct {
	ServerName string // lower case; empty: none was named
	// Encrypted says that what the client really asks for may be hidden in an
	// encrypted ClientHello, or that it pretends so, which looks the same.
	Encrypted bool

	read   int
	header []byte // of the record under way
	left   int    // of the record's payload
	msg    []byte // the handshake message so far
}

const (
	recordHeader    = 5
	recordHandshake = 22
	maxRecord       = 1 << 14
	messageHeader   = 4
	typeClientHello = 1

	extServerName = 0
	extECH        = 0xfe0d // RFC 9849
	extESNI       = 0xffce // its predecessor, draft-ietf-tls-esni-06
	nameHost      = 0
)

// Feed reads more bytes and reports whether the message is complete. What
// follows it is not looked at.
func (h *Hello) Feed(p []byte) (complete bool, err error) {
	for len(p) > 0 {
		n := min(max(h.left, 1), len(p), MaxHello-h.read)
		if n == 0 {
			return false, fmt.Errorf("%w: it has more than %d bytes", ErrNotHello, MaxHello)
		}
		h.read += n
		if h.left == 0 {
			h.header = append(h.header, p[0])
			p = p[1:]
			if err := h.beginRecord(); err != nil {
				return false, err
			}
			continue
		}
		h.msg = append(h.msg, p[:n]...)
		h.left, p = h.left-n, p[n:]
		if complete, err := h.message(); complete || err != nil {
			return complete, err
		}
	}
	return false, nil
}

// beginRecord judges the record's header as soon as there is something of it:
// other protocols are told apart by their first byte.
func (h *Hello) beginRecord() error {
	switch len(h.header) {
	case 1:
		if h.header[0] != recordHandshake {
			return fmt.Errorf("%w: the first byte of a record is %#02x", ErrNotHello, h.header[0])
		}
	case 2:
		if h.header[1] != 3 {
			return fmt.Errorf("%w: a record of version %d", ErrNotHello, h.header[1])
		}
	case recordHeader:
		h.left = int(binary.BigEndian.Uint16(h.header[3:]))
		if h.left == 0 || h.left > maxRecord {
			return fmt.Errorf("%w: a record of %d bytes", ErrNotHello, h.left)
		}
		h.header = h.header[:0]
	}
	return nil
}

func (h *Hello) message() (complete bool, err error) {
	if h.msg[0] != typeClientHello {
		return false, fmt.Errorf("%w: a handshake message of type %d", ErrNotHello, h.msg[0])
	}
	if len(h.msg) < messageHeader {
		return false, nil
	}
	size := int(h.msg[1])<<16 | int(binary.BigEndian.Uint16(h.msg[2:]))
	if size > MaxHello {
		return false, fmt.Errorf("%w: a message of %d bytes", ErrNotHello, size)
	}
	if len(h.msg) < messageHeader+size {
		return false, nil
	}
	err = h.parse(h.msg[messageHeader : messageHeader+size])
	return err == nil, err
}

// parse reads the body: version, random, session, cipher suites, compression
// methods, extensions.
func (h *Hello) parse(body []byte) error {
	r := reader{b: body}
	r.skip(2 + 32)
	r.vector(1)
	suites := r.vector(2)
	compressions := r.vector(1)
	if r.bad || len(suites) < 2 || len(compressions) < 1 {
		return fmt.Errorf("%w: it is cut off", ErrNotHello)
	}
	if len(r.b) == 0 {
		return nil // TLS 1.2 and before may have no extensions
	}
	exts := reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: its extensions do not fill it", ErrNotHello)
	}
	named := false
	for len(exts.b) > 0 && !exts.bad {
		kind, data := exts.number(2), exts.vector(2)
		switch {
		case exts.bad:
		case kind == extECH || kind == extESNI:
			h.Encrypted = true
		case kind == extServerName && named:
			return fmt.Errorf("%w: it names its server twice", ErrNotHello)
		case kind == extServerName:
			named = true
			if err := h.serverName(data); err != nil {
				return err
			}
		}
	}
	if exts.bad {
		return fmt.Errorf("%w: an extension is cut off", ErrNotHello)
	}
	return nil
}

// serverName reads the extension (RFC 6066 section 3): one host name.
func (h *Hello) serverName(data []byte) error {
	r := reader{b: data}
	list := reader{b: r.vector(2)}
	kind, name := list.number(1), list.vector(2)
	if r.bad || list.bad || len(r.b)+len(list.b) != 0 || kind != nameHost || len(name) == 0 {
		return fmt.Errorf("%w: its server name is not one host name", ErrNotHello)
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%w: its server name has other characters than a name's", ErrNotHello)
		}
	}
	h.ServerName = strings.ToLower(string(name))
	return nil
}

// reader takes big-endian numbers and vectors with their length before them.
// Once something is missing it is bad and gives nothing more.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) skip(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(size int) (v int) {
	for _, c := range r.skip(size) {
		v = v<<8 | int(c)
	}
	return v
}

func (r *reader) vector(size int) []byte { return r.skip(r.number(size)) }
