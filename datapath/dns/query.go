// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"encoding/binary"
	"strings"

	miekg "github.com/miekg/dns"
)

const (
	headerSize = 12
	// faultSilent is a message that gets no answer at all: too short to have an
	// id, or an answer itself (two servers would answer each other for ever).
	faultSilent = -1
	// udpSize is the longest answer over UDP, whatever the pod would take:
	// nothing is ever sent in fragments (DNS flag day 2020).
	udpSize = 1232
	// maxQuery is the longest query that is read: a question has 271 bytes, and
	// options of clients, padding included, are far from filling the rest.
	maxQuery = 4096
)

// query is what a pod asks, and all that is kept of its message.
type query struct {
	id     uint16
	opcode int
	rd, cd bool
	asked  []miekg.Question // as the pod wrote it: clients compare, case included; empty where it could not be read
	name   string           // canonical, no final dot
	qtype  uint16
	edns   bool
	size   int // of the longest answer over UDP
	hops   int // Services followed that stand for other names
}

// parse reads a message of a pod. A fault other than faultSilent is the code to
// answer with.
func parse(raw []byte) (q *query, fault int) {
	if len(raw) < headerSize || raw[2]&0x80 != 0 {
		return nil, faultSilent
	}
	q = &query{
		id: uint16(raw[0])<<8 | uint16(raw[1]), opcode: int(raw[2] >> 3 & 0xf),
		rd: raw[2]&1 != 0, cd: raw[3]&0x10 != 0, size: miekg.MinMsgSize,
	}
	if q.opcode != miekg.OpcodeQuery {
		return q, miekg.RcodeNotImplemented
	}
	// The counts are judged before anything is unpacked: a datagram has room for
	// 10,000 questions, each of them a pointer to the longest of names.
	if len(raw) > maxQuery || count(raw, 4) != 1 || count(raw, 6) != 0 || count(raw, 8) != 0 || count(raw, 10) > 1 {
		return q, miekg.RcodeFormatError
	}
	var m miekg.Msg
	if m.Unpack(raw) != nil || len(m.Question) != 1 || len(m.Answer) != 0 || len(m.Ns) != 0 || len(m.Extra) > 1 {
		return q, miekg.RcodeFormatError
	}
	if len(m.Extra) == 1 {
		opt, ok := m.Extra[0].(*miekg.OPT)
		if !ok || opt.Hdr.Name != "." {
			return q, miekg.RcodeFormatError // a signature, or nonsense
		}
		q.edns, q.size = true, min(max(int(opt.UDPSize()), miekg.MinMsgSize), udpSize)
		if opt.Version() != 0 {
			return q, miekg.RcodeBadVers
		}
	}
	q.asked = m.Question
	q.name, q.qtype = canonical(m.Question[0].Name), m.Question[0].Qtype
	switch {
	case m.Question[0].Qclass != miekg.ClassINET:
		return q, miekg.RcodeRefused
	case meta(q.qtype):
		return q, miekg.RcodeNotImplemented
	}
	return q, 0
}

// count is how many records the header says that a section has.
func count(raw []byte, at int) uint16 { return binary.BigEndian.Uint16(raw[at:]) }

// meta reports types that no record has (RFC 6895 section 3.1): transfers, ANY
// and the like.
func meta(t uint16) bool { return t == 0 || t == miekg.TypeOPT || t >= 128 && t <= 255 }

// canonical is a name in lower case without its final dot; "" is the root.
func canonical(name string) string {
	return strings.TrimSuffix(miekg.CanonicalName(name), ".")
}

// plain reports whether a canonical name has only what host names and services
// have: letters, digits, hyphens and underscores. All others are escaped or
// foreign; no record of ours has such a name, and none is sent anywhere.
func plain(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	label := 0
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '.' && label > 0:
			label = 0
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			if label++; label > 63 {
				return false
			}
		default:
			return false
		}
	}
	return label > 0
}
