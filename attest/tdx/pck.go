// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// Last arcs of Intel's extension 1.2.840.113741.1.13.1 (PCK Certificate and CRL
// Profile, "SGX extensions").
const (
	arcPPID          = 1
	arcTCB           = 2
	arcPCEID         = 3
	arcFMSPC         = 4
	arcSGXType       = 5
	arcPIID          = 6
	arcConfiguration = 7

	arcPCESVN = 17 // of arcTCB; 1 to 16 are the components
	arcCPUSVN = 18

	components = 16
)

// PCK is what Intel says about a platform.
type PCK struct {
	PPID       [16]byte
	PIID       [16]byte // zero where the processor CA issued the certificate
	PCEID      [2]byte
	FMSPC      [6]byte
	Components [components]uint8 // SGX TCB components
	PCESVN     uint16
	CPUSVN     [16]byte
}

// SGXArc returns the OID of Intel's extension with the given last arcs.
func SGXArc(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, arcs...)
}

// attribute is one entry of the extension: an OID and its value.
type attribute struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

func parsePCK(leaf *x509.Certificate) (*PCK, error) {
	var value []byte
	for _, e := range leaf.Extensions {
		if e.Id.Equal(SGXArc()) {
			if value != nil {
				return nil, extensionError("one SGX extension", "two")
			}
			value = e.Value
		}
	}
	p := &pckParser{}
	top := p.attributes(value, SGXArc())
	k := &PCK{}
	p.bytes(top, arcPPID, k.PPID[:])
	p.bytes(top, arcPCEID, k.PCEID[:])
	p.bytes(top, arcFMSPC, k.FMSPC[:])
	if _, ok := top[arcPIID]; ok {
		p.bytes(top, arcPIID, k.PIID[:])
	}
	p.integer(top, arcSGXType, asn1.TagEnum, 2)
	for arc := range top {
		if arc < arcPPID || arc > arcConfiguration {
			p.refuse(fmt.Sprintf("arcs 1 to %d of %s", arcConfiguration, SGXArc()), fmt.Sprint(arc))
		}
	}
	p.tcb(top, k)
	if p.err != nil {
		return nil, p.err
	}
	return k, nil
}

// pckParser keeps the first error.
type pckParser struct{ err error }

func extensionError(expected, actual string) error {
	return attest.NewFailure(CodeExtensions, expected, actual, "")
}

func (p *pckParser) refuse(expected, actual string) {
	if p.err == nil {
		p.err = extensionError(expected, actual)
	}
}

// attributes reads a sequence of OIDs, each prefix plus one arc, and values.
func (p *pckParser) attributes(der []byte, prefix asn1.ObjectIdentifier) map[int]asn1.RawValue {
	var list []attribute
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
		p.refuse(fmt.Sprintf("%s with a sequence of attributes", prefix), "something else")
		return nil
	}
	found := make(map[int]asn1.RawValue, len(list))
	for _, a := range list {
		n := len(prefix)
		if len(a.ID) != n+1 || !a.ID[:n].Equal(prefix) {
			p.refuse("attributes below "+prefix.String(), a.ID.String())
			continue
		}
		if _, twice := found[a.ID[n]]; twice {
			p.refuse("each attribute once", a.ID.String()+" twice")
		}
		found[a.ID[n]] = a.Value
	}
	return found
}

func (p *pckParser) bytes(in map[int]asn1.RawValue, arc int, to []byte) {
	v := in[arc]
	if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagOctetString || v.IsCompound || len(v.Bytes) != len(to) {
		p.refuse(fmt.Sprintf("%s to be %d bytes", SGXArc(arc), len(to)), fmt.Sprintf("tag %d with %d bytes", v.Tag, len(v.Bytes)))
		return
	}
	copy(to, v.Bytes)
}

func (p *pckParser) integer(in map[int]asn1.RawValue, arc, tag int, limit int64) int64 {
	v := in[arc]
	if v.Class != asn1.ClassUniversal || v.Tag != tag || v.IsCompound || len(v.Bytes) == 0 || len(v.Bytes) > 4 || v.Bytes[0]&0x80 != 0 {
		p.refuse(fmt.Sprintf("attribute %d to be an integer", arc), "something else")
		return 0
	}
	var n int64
	for _, b := range v.Bytes {
		n = n<<8 | int64(b)
	}
	if n > limit {
		p.refuse(fmt.Sprintf("attribute %d to be at most %d", arc, limit), fmt.Sprint(n))
		return 0
	}
	return n
}

func (p *pckParser) tcb(top map[int]asn1.RawValue, k *PCK) {
	tcb := p.attributes(top[arcTCB].FullBytes, SGXArc(arcTCB))
	for i := range k.Components {
		k.Components[i] = uint8(p.integer(tcb, i+1, asn1.TagInteger, 255)) //nolint:gosec // at most 255
	}
	k.PCESVN = uint16(p.integer(tcb, arcPCESVN, asn1.TagInteger, 65535)) //nolint:gosec // at most 65535
	p.bytes(tcb, arcCPUSVN, k.CPUSVN[:])
	if p.err == nil && len(tcb) != arcCPUSVN {
		p.refuse(fmt.Sprintf("%d TCB attributes", arcCPUSVN), fmt.Sprint(len(tcb)))
	}
}
