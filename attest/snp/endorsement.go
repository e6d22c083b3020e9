// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

// ChipIDSize is the size of a Milan or Genoa chip id in bytes.
const ChipIDSize = 64

// The last arcs of AMD's VCEK extensions, 1.3.6.1.4.1.3704.1 (57230, "VCEK
// Certificate").
const (
	arcStructVersion = 1
	arcProductName   = 2
	arcSPL           = 3
	arcHWID          = 4
	arcCSPID         = 5

	splBootLoader = 1
	splTEE        = 2
	splSNP        = 3
	splMicrocode  = 8
	splReserved   = 7 // 4 to 7 must be zero
)

const maxStructVersion = 1

// Endorsement is what AMD says about the holder of a VCEK.
type Endorsement struct {
	Product Product
	TCB     policy.TCB
	ChipID  [ChipIDSize]byte
}

// AMDArc returns the OID of AMD's extension with the given last arcs.
func AMDArc(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arcs...)
}

// parseEndorsement reads AMD's extensions of a VCEK. It accepts those of Milan
// and Genoa only; Turin adds an FMC SPL and shortens the chip id.
func parseEndorsement(vcek *x509.Certificate) (*Endorsement, error) {
	ext := make(map[string][]byte, 12)
	base := AMDArc()
	for _, e := range vcek.Extensions {
		if len(e.Id) > len(base) && e.Id[:len(base)].Equal(base) {
			ext[asn1.ObjectIdentifier(e.Id[len(base):]).String()] = e.Value
		}
	}
	p := endorsementParser{ext: ext}
	e := &Endorsement{}
	version := p.integer(maxStructVersion, arcStructVersion)
	name := p.ia5(arcProductName)
	e.TCB = policy.TCB{
		BootLoader: p.spl(splBootLoader), TEE: p.spl(splTEE), SNP: p.spl(splSNP), Microcode: p.spl(splMicrocode),
	}
	for i := splSNP + 1; i <= splReserved; i++ {
		if v := p.spl(i); v != 0 {
			p.refuse("reserved SPL zero", fmt.Sprint(v))
		}
	}
	p.chipID(e.ChipID[:])
	if p.err == nil && len(ext) != 0 {
		p.refuse("only AMD extensions that are known for Milan and Genoa", fmt.Sprintf("%d more (structure version %d)", len(ext), version))
	}
	if p.err != nil {
		return nil, p.err
	}
	e.Product = productOfName(name)
	return e, e.Product.supported()
}

// endorsementParser takes extensions out of ext and keeps the first error.
type endorsementParser struct {
	ext map[string][]byte
	err error
}

func (p *endorsementParser) refuse(expected, actual string) {
	if p.err == nil {
		p.err = fail(CodeEndorsement, expected, actual, "fetch the chip's VCEK from AMD's key server again")
	}
}

func (p *endorsementParser) take(arcs ...int) []byte {
	key := asn1.ObjectIdentifier(arcs).String()
	v, ok := p.ext[key]
	if !ok {
		what := "extension " + AMDArc(arcs...).String()
		if _, vlek := p.ext[fmt.Sprint(arcCSPID)]; vlek {
			what += " of a VCEK"
		}
		p.refuse(what, "none")
	}
	delete(p.ext, key)
	return v
}

func (p *endorsementParser) integer(limit int, arcs ...int) int {
	var v int
	rest, err := asn1.Unmarshal(p.take(arcs...), &v)
	if err != nil || len(rest) != 0 || v < 0 || v > limit {
		p.refuse(fmt.Sprintf("%s to be an integer from 0 to %d", AMDArc(arcs...), limit), "something else")
		return 0
	}
	return v
}

func (p *endorsementParser) spl(which int) uint8 {
	return uint8(p.integer(255, arcSPL, which)) //nolint:gosec // at most 255
}

func (p *endorsementParser) ia5(arcs ...int) string {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(p.take(arcs...), &v)
	if err != nil || len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String {
		p.refuse(AMDArc(arcs...).String()+" to be an IA5String", "something else")
		return ""
	}
	return string(v.Bytes)
}

// chipID accepts both encodings AMD has used: the bare bytes, and the bytes in
// an OCTET STRING.
func (p *endorsementParser) chipID(to []byte) {
	v := p.take(arcHWID)
	if len(v) == len(to)+2 && v[0] == asn1.TagOctetString && int(v[1]) == len(to) {
		v = v[2:]
	}
	if len(v) != len(to) {
		p.refuse(fmt.Sprintf("a chip id of %d bytes", len(to)), fmt.Sprintf("%d bytes", len(v)))
		return
	}
	copy(to, v)
}

// CheckTCB checks that the VCEK is the one for the TCB the report claims. The
// certificate is the word of AMD, the report that of the machine.
func (c *Chain) CheckTCB(r *Report) error {
	reported, err := c.Endorsement.Product.TCB(r.Reported)
	if err != nil {
		return err
	}
	if reported != c.Endorsement.TCB {
		return fail(CodeEndorsedTCB, "the VCEK's "+c.Endorsement.TCB.String(), "the report's "+reported.String(), "fetch the VCEK for the reported TCB")
	}
	return nil
}

// CheckChip checks that the VCEK is of the chip that the report names.
func (c *Chain) CheckChip(r *Report) error {
	switch {
	case r.MaskChipKey:
		return fail(CodeEndorsedChip, "a chip id", "one masked by the host (MASK_CHIP_KEY)", "have the host unmask the chip key")
	case r.ChipID == [ChipIDSize]byte{}:
		return fail(CodeEndorsedChip, "a chip id", "zeros", "have the host unmask the chip id")
	case r.ChipID != c.Endorsement.ChipID:
		return fail(CodeEndorsedChip, fmt.Sprintf("the VCEK's %x", c.Endorsement.ChipID), fmt.Sprintf("the report's %x", r.ChipID), "fetch the VCEK of this chip")
	}
	return nil
}

// CheckProduct checks that the VCEK is of the product the report is read as.
func (c *Chain) CheckProduct(p Product) error {
	if c.Endorsement.Product != p {
		return fail(CodeProductMismatch, fmt.Sprintf("%s, as the VCEK says", c.Endorsement.Product), string(p), "")
	}
	return nil
}
