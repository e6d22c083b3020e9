// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// Product is a processor line with one set of AMD keys and one TCB layout.
type Product string

// The known products. Siena and Bergamo use Genoa's keys and count as Genoa.
const (
	Milan Product = policy.ProductMilan
	Genoa Product = policy.ProductGenoa
	Turin Product = "Turin"
)

// Products returns the known products.
func Products() []Product { return []Product{Milan, Genoa, Turin} }

const wantProduct = "Milan, Genoa or Turin"

// ProductOf names the product of a processor. Models are counted by sixteen:
// family 19h 0xh is Milan, 1xh Genoa, Axh Siena and Bergamo; family 1Ah 0xh is
// Turin and 1xh Turin Dense.
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
	return "", attest.NewFailure(CodeProductUnknown, wantProduct, c.String(), "use a c8s version that knows the processor")
}

// Product says which product the report is of. Reports of version 2 do not
// say, so hint is believed until the leaf certificate confirms it; a later
// report must agree with a hint that is not empty.
func (r *Report) Product(hint string) (Product, error) {
	if r.Version < cpuidVersion {
		p := Product(hint)
		return p, p.known()
	}
	p, err := ProductOf(r.CPUID)
	if err != nil {
		return "", err
	}
	if hint != "" && hint != string(p) {
		return "", attest.NewFailure(CodeProductMismatch, fmt.Sprintf("%s, as the report says", p), fmt.Sprintf("%.32q beside it", hint), "")
	}
	return p, nil
}

func (p Product) known() error {
	switch p {
	case Milan, Genoa, Turin:
		return nil
	}
	return attest.NewFailure(CodeProductUnknown, wantProduct, fmt.Sprintf("%.32q", string(p)), "name the product beside a version 2 report")
}

// Lengths of the chip id (hwID) in a VCEK. A report has 64 bytes for it; those
// of Turin fill only the first 8 (57230, "VCEK Certificate").
const (
	ChipIDSize      = 64
	turinChipIDSize = 8
)

// ChipIDSize returns how many bytes name one of the product's chips.
func (p Product) ChipIDSize() int {
	if p == Turin {
		return turinChipIDSize
	}
	return ChipIDSize
}

// structVersion returns the version of AMD's certificate extensions.
func (p Product) structVersion() int {
	if p == Turin {
		return 1
	}
	return 0
}

// tcbLayout says which byte of a TCB_VERSION holds which part; -1 is for a part
// the product does not have (56860, TCB_VERSION).
type tcbLayout struct{ fmc, bootLoader, tee, snp, microcode int }

func (p Product) layout() (tcbLayout, error) {
	if err := p.known(); err != nil {
		return tcbLayout{}, err
	}
	if p == Turin {
		return tcbLayout{fmc: 0, bootLoader: 1, tee: 2, snp: 3, microcode: 7}, nil
	}
	return tcbLayout{fmc: -1, bootLoader: 0, tee: 1, snp: 6, microcode: 7}, nil
}

// TCB reads a TCB_VERSION in the product's layout.
func (p Product) TCB(raw RawTCB) (policy.TCB, error) {
	l, err := p.layout()
	if err != nil {
		return policy.TCB{}, err
	}
	t := policy.TCB{BootLoader: raw[l.bootLoader], TEE: raw[l.tee], SNP: raw[l.snp], Microcode: raw[l.microcode]}
	if l.fmc >= 0 {
		t.FMC = raw[l.fmc]
	}
	if again, err := p.RawTCB(t); err != nil || again != raw {
		return policy.TCB{}, attest.NewFailure(CodeTCBReserved, "zero in reserved parts", fmt.Sprintf("%x", raw), "use a c8s version that knows this firmware")
	}
	return t, nil
}

// RawTCB is the inverse of TCB.
func (p Product) RawTCB(t policy.TCB) (RawTCB, error) {
	l, err := p.layout()
	if err != nil {
		return RawTCB{}, err
	}
	var raw RawTCB
	raw[l.bootLoader], raw[l.tee], raw[l.snp], raw[l.microcode] = t.BootLoader, t.TEE, t.SNP, t.Microcode
	switch {
	case l.fmc >= 0:
		raw[l.fmc] = t.FMC
	case t.FMC != 0:
		return RawTCB{}, attest.NewFailure(CodeTCBReserved, fmt.Sprintf("no FMC on %s", p), t.String(), "")
	}
	return raw, nil
}

// productOfName reads the productName of a leaf: the line, and perhaps a
// stepping, "Milan-B0". Chips of Siena and Bergamo belong to Genoa.
func productOfName(name string) Product {
	line, _, _ := strings.Cut(name, "-")
	switch line {
	case "Siena", "Bergamo":
		return Genoa
	}
	return Product(line)
}
