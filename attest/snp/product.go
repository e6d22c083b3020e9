// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// Product is a processor line with one set of AMD keys and one TCB layout.
type Product string

// The known products. Siena and Bergamo use Genoa's keys and count as Genoa.
// Turin is known by name only: its TCB and chip id have another layout, so it is
// refused until that is implemented.
const (
	Milan Product = policy.ProductMilan
	Genoa Product = policy.ProductGenoa
	Turin Product = "Turin"
)

// ProductOf names the product of a processor.
func ProductOf(c CPUID) (Product, error) {
	const zen3and4, zen5 = 0x19, 0x1A
	switch model := c.Model >> 4; {
	case c.Family == zen3and4 && model == 0x0:
		return Milan, nil
	case c.Family == zen3and4 && (model == 0x1 || model == 0xA):
		return Genoa, nil
	case c.Family == zen5 && model <= 0x1:
		return Turin, nil
	}
	return "", fail(CodeProductUnknown, "Milan or Genoa", c.String(), "use a c8s version that knows the processor")
}

// Product says which product the report is of. Reports of version 2 do not
// say, so hint is believed until the VCEK confirms it; a later report must
// agree with a hint that is not empty.
func (r *Report) Product(hint string) (Product, error) {
	if r.Version < cpuidVersion {
		p := Product(hint)
		return p, p.supported()
	}
	p, err := ProductOf(r.CPUID)
	if err != nil {
		return "", err
	}
	if hint != "" && hint != string(p) {
		return "", fail(CodeProductMismatch, fmt.Sprintf("%s, as the report says", p), fmt.Sprintf("%.32q beside it", hint), "")
	}
	return p, p.supported()
}

func (p Product) supported() error {
	switch p {
	case Milan, Genoa:
		return nil
	case Turin:
		return fail(CodeProductUnsupported, "Milan or Genoa", string(p), "use a c8s version that supports the processor")
	}
	return fail(CodeProductUnknown, "Milan or Genoa", fmt.Sprintf("%.32q", string(p)), "name the product beside a version 2 report")
}

// TCB reads a TCB_VERSION in the product's layout (56860, TCB_VERSION). For
// Milan and Genoa: boot loader, TEE, four reserved, SNP, microcode.
func (p Product) TCB(raw RawTCB) (policy.TCB, error) {
	if err := p.supported(); err != nil {
		return policy.TCB{}, err
	}
	for i := 2; i < 6; i++ {
		if raw[i] != 0 {
			return policy.TCB{}, fail(CodeTCBReserved, "zero in reserved parts", fmt.Sprintf("%x", raw), "use a c8s version that knows this firmware")
		}
	}
	return policy.TCB{BootLoader: raw[0], TEE: raw[1], SNP: raw[6], Microcode: raw[7]}, nil
}

// RawTCB is the inverse of TCB.
func (p Product) RawTCB(t policy.TCB) (RawTCB, error) {
	if err := p.supported(); err != nil {
		return RawTCB{}, err
	}
	return RawTCB{0: t.BootLoader, 1: t.TEE, 6: t.SNP, 7: t.Microcode}, nil
}

// productOfName reads the productName of a VCEK, "Milan-B0" or "Genoa".
func productOfName(name string) Product {
	line, _, _ := strings.Cut(name, "-")
	return Product(line)
}
