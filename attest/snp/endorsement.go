// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// The last arcs of AMD's extensions, 1.3.6.1.4.1.3704.1 (57230, "VCEK
// Certificate" and "VLEK Certificate").
const (
	arcStructVersion = 1
	arcProductName   = 2
	arcSPL           = 3
	arcHWID          = 4 // VCEK only
	arcCSPID         = 5 // VLEK only

	splBootLoader = 1
	splTEE        = 2
	splSNP        = 3
	splReserved4  = 4 // 4 to 7 must be zero; structure version 1 leaves out 4
	splReserved7  = 7
	splMicrocode  = 8
	splFMC        = 9 // structure version 1 only
)

const (
	maxStructVersion = 1
	maxCSPID         = 256
)

// Endorsement is what AMD says about the holder of a VCEK or VLEK.
type Endorsement struct {
	Signer  SigningKey // KeyVCEK or KeyVLEK
	Product Product
	TCB     policy.TCB
	ChipID  []byte // of a VCEK, ChipIDSize bytes of the product; nil for a VLEK, which is not of one chip
	CSPID   string // of a VLEK: the cloud provider, as AMD names it; "" for a VCEK
}

// AMDArc returns the OID of AMD's extension with the given last arcs.
func AMDArc(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arcs...)
}

// EndorsedProduct returns the product that a VCEK or VLEK is for: the hint for
// a report of version 2, which does not name it. Nothing is verified.
func EndorsedProduct(leaf []byte) (Product, error) {
	if len(leaf) > attest.MaxCert {
		return "", attest.NewFailure(CodeCertificate, fmt.Sprintf("at most %d bytes", attest.MaxCert), fmt.Sprintf("%d bytes", len(leaf)), "")
	}
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return "", attest.NewFailure(CodeCertificate, "an X.509 certificate", err.Error(), "")
	}
	e, err := parseEndorsement(c)
	if err != nil {
		return "", err
	}
	return e.Product, nil
}

// parseEndorsement reads AMD's extensions. All that the product and the kind of
// certificate call for must be there, and no other.
func parseEndorsement(leaf *x509.Certificate) (*Endorsement, error) {
	p := endorsementParser{ext: make(map[string][]byte, 16)}
	base := AMDArc()
	for _, e := range leaf.Extensions {
		if len(e.Id) > len(base) && e.Id[:len(base)].Equal(base) {
			p.ext[e.Id[len(base):].String()] = e.Value
		}
	}
	e := &Endorsement{Signer: KeyVCEK}
	version := p.integer(maxStructVersion, arcStructVersion)
	e.Product = productOfName(p.ia5(arcProductName))
	if p.err != nil {
		return nil, p.err
	}
	if err := e.Product.known(); err != nil {
		return nil, err
	}
	if want := e.Product.structVersion(); version != want {
		p.refuse(fmt.Sprintf("structure version %d for %s", want, e.Product), fmt.Sprint(version))
	}
	e.TCB = p.tcb(version)
	if p.has(arcCSPID) {
		e.Signer, e.CSPID = KeyVLEK, p.ia5(arcCSPID)
	} else {
		e.ChipID = p.chipID(e.Product.ChipIDSize())
	}
	if len(p.ext) != 0 {
		p.refuse("only AMD extensions that are known for a "+e.Signer.String()+" of "+string(e.Product), fmt.Sprintf("%d more", len(p.ext)))
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

// endorsementParser takes extensions out of ext and keeps the first error.
type endorsementParser struct {
	ext map[string][]byte
	err error
}

func (p *endorsementParser) refuse(expected, actual string) {
	if p.err == nil {
		p.err = attest.NewFailure(CodeEndorsement, expected, actual, "fetch the certificate from AMD's key server again")
	}
}

func (p *endorsementParser) has(arcs ...int) bool {
	_, ok := p.ext[asn1.ObjectIdentifier(arcs).String()]
	return ok
}

func (p *endorsementParser) take(arcs ...int) []byte {
	if !p.has(arcs...) {
		p.refuse("extension "+AMDArc(arcs...).String(), "none")
	}
	key := asn1.ObjectIdentifier(arcs).String()
	v := p.ext[key]
	delete(p.ext, key)
	return v
}

func (p *endorsementParser) tcb(version int) policy.TCB {
	t := policy.TCB{
		BootLoader: p.spl(splBootLoader), TEE: p.spl(splTEE), SNP: p.spl(splSNP), Microcode: p.spl(splMicrocode),
	}
	if version > 0 {
		t.FMC = p.spl(splFMC)
	}
	for i := splReserved4; i <= splReserved7; i++ {
		if i == splReserved4 && version > 0 && !p.has(arcSPL, i) {
			continue
		}
		if v := p.spl(i); v != 0 {
			p.refuse(fmt.Sprintf("reserved SPL %d zero", i), fmt.Sprint(v))
		}
	}
	return t
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

// ia5 reads an IA5String: AMD's encoding of productName and CSP_ID. Only
// printable ones are of use in a verdict.
func (p *endorsementParser) ia5(arcs ...int) string {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(p.take(arcs...), &v)
	printable := len(v.Bytes) > 0 && len(v.Bytes) <= maxCSPID &&
		!bytes.ContainsFunc(v.Bytes, func(r rune) bool { return r < ' ' || r > '~' })
	if err != nil || len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String || !printable {
		p.refuse(AMDArc(arcs...).String()+" to be a printable IA5String", "something else")
		return ""
	}
	return string(v.Bytes)
}

// chipID accepts both encodings AMD has used: the bare bytes, and the bytes in
// an OCTET STRING.
func (p *endorsementParser) chipID(size int) []byte {
	v := p.take(arcHWID)
	if len(v) == size+2 && v[0] == asn1.TagOctetString && int(v[1]) == size {
		v = v[2:]
	}
	if len(v) != size {
		p.refuse(fmt.Sprintf("a chip id of %d bytes", size), fmt.Sprintf("%d bytes", len(v)))
		return nil
	}
	return bytes.Clone(v)
}

// CheckTCB checks that the leaf is the one for the TCB the report claims. The
// certificate is the word of AMD, the report that of the machine.
func (c *Chain) CheckTCB(r *Report) error {
	reported, err := c.Endorsement.Product.TCB(r.Reported)
	if err != nil {
		return err
	}
	if kind := c.Endorsement.Signer.String(); reported != c.Endorsement.TCB {
		return attest.NewFailure(CodeEndorsedTCB, "the "+kind+"'s "+c.Endorsement.TCB.String(), "the report's "+reported.String(), "fetch the "+kind+" for the reported TCB")
	}
	return nil
}

// CheckChip checks that the VCEK is of the chip that the report names. A VLEK
// endorses no chip: then Endorsement.ChipID is nil and there is nothing that
// CheckChip could find good, so it refuses with CodeNoEndorsedChip. Callers who
// accept VLEKs look at ChipID first and call the check not applicable.
func (c *Chain) CheckChip(r *Report) error {
	want := c.Endorsement.ChipID
	switch {
	case c.Endorsement.Signer == KeyVLEK || len(want) == 0:
		return attest.NewFailure(CodeNoEndorsedChip, "a VCEK, which is of one chip", "a "+c.Endorsement.Signer.String()+", which is not", "")
	case r.MaskChipKey:
		return attest.NewFailure(CodeEndorsedChip, "a chip id", "one masked by the host (MASK_CHIP_KEY)", "have the host unmask the chip key")
	case r.ChipID == [ChipIDSize]byte{}:
		return attest.NewFailure(CodeEndorsedChip, "a chip id", "zeros", "have the host unmask the chip id")
	}
	var padded [ChipIDSize]byte
	if copy(padded[:], want) != len(want) || r.ChipID != padded {
		return attest.NewFailure(CodeEndorsedChip, fmt.Sprintf("the VCEK's %x", want), fmt.Sprintf("the report's %x", r.ChipID), "fetch the VCEK of this chip")
	}
	return nil
}

// CheckProduct checks that the leaf is of the product the report is read as.
func (c *Chain) CheckProduct(p Product) error {
	if c.Endorsement.Product != p {
		return attest.NewFailure(CodeProductMismatch, fmt.Sprintf("%s, as the certificate says", c.Endorsement.Product), string(p), "")
	}
	return nil
}
