// SPDX-License-Identifier: Apache-2.0

package attest

import "encoding/binary"

// encodeRecord writes the record by hand: it cannot fail, which Hash needs, and
// checks ParseCMW's library from the outside.
func encodeRecord(e *Evidence) []byte {
	value := encodeValue(e)
	out := head(make([]byte, 0, len(value)+64), cborArray, 3)
	out = text(out, e.mediaType())
	out = byteString(out, value)
	return head(out, cborUint, indEvidence)
}

func (e *Evidence) mediaType() string { return "application/vnd.c8s." + e.TEE + "+cbor" }

// encodeValue writes the members in the bytewise order of their encoded keys:
// the shorter key first, then by letter (RFC 8949 section 4.2.1).
func encodeValue(e *Evidence) []byte {
	var m members
	if v := e.VTPM; v != nil {
		m.add("vtpm", encodeVTPM(v))
	}
	if len(e.Certs) > 0 {
		m.add("certs", byteStrings(nil, e.Certs))
	}
	m.add("report", byteString(nil, e.Report))
	if e.Product != "" {
		m.add("product", text(nil, e.Product))
	}
	if len(e.EventLog) > 0 {
		m.add("eventlog", byteString(nil, e.EventLog))
	}
	if len(e.Collateral) > 0 {
		list := head(nil, cborArray, len(e.Collateral))
		for i := range e.Collateral {
			list = append(list, encodeCollateral(&e.Collateral[i])...)
		}
		m.add("collateral", list)
	}
	return m.encode()
}

func encodeVTPM(v *VTPM) []byte {
	var m members
	m.add("pcrs", byteStrings(nil, v.PCRs))
	m.add("quote", byteString(nil, v.Quote))
	m.add("runtime", byteString(nil, v.Runtime))
	m.add("signature", byteString(nil, v.Signature))
	return m.encode()
}

func encodeCollateral(c *Collateral) []byte {
	var m members
	m.add("body", byteString(nil, c.Body))
	m.add("kind", text(nil, string(c.Kind)))
	if len(c.Certs) > 0 {
		m.add("certs", byteStrings(nil, c.Certs))
	}
	return m.encode()
}

// members are the encoded pairs of a map, in their order.
type members struct {
	n int
	b []byte
}

func (m *members) add(key string, value []byte) {
	m.n++
	m.b = append(text(m.b, key), value...)
}

func (m *members) encode() []byte { return append(head(nil, cborMap, m.n), m.b...) }

// CBOR major types (RFC 8949 section 3.1), shifted into place.
const (
	cborUint  = 0 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
)

func text(b []byte, s string) []byte { return append(head(b, cborText, len(s)), s...) }
func byteString(b, s []byte) []byte  { return append(head(b, cborBytes, len(s)), s...) }

func byteStrings(b []byte, list [][]byte) []byte {
	b = head(b, cborArray, len(list))
	for _, s := range list {
		b = byteString(b, s)
	}
	return b
}

func head(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case uint64(n) < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), uint64(n))
}
