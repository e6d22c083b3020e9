// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/c8s-dev/c8s/attest/snp"
)

// issueLeaf makes the VCEK's or VLEK's certificate.
func (t *TEE) issueLeaf() ([]byte, error) {
	extensions, err := leafExtensions(t.opts)
	if err != nil {
		return nil, err
	}
	lifetime := vcekLifetime
	if t.opts.signer() == snp.KeyVLEK {
		lifetime = vlekLifetime
	}
	now := t.opts.Now()
	return x509.CreateCertificate(t.random, &x509.Certificate{
		SerialNumber: big.NewInt(serialLeaf), Subject: subject(snp.SimulatedMark + " SEV-" + t.opts.signer().String()),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore:          now.Add(-24 * time.Hour), NotAfter: now.Add(lifetime),
		ExtraExtensions: extensions,
	}, t.issuer(), t.key.Public(), t.vendor.key)
}

// leafExtensions are AMD's (57230, tables of certificate extensions). Structure
// version 1, Turin's, has no SPL 4 and adds the FMC's, number 9.
func leafExtensions(o Options) ([]pkix.Extension, error) {
	tcb := o.TCB
	version, spls := 0, map[int]uint8{1: tcb.BootLoader, 2: tcb.TEE, 3: tcb.SNP, 4: 0, 5: 0, 6: 0, 7: 0, 8: tcb.Microcode}
	name := string(o.Product)
	switch {
	case o.Product == snp.Turin:
		version, spls[9] = 1, tcb.FMC
		delete(spls, 4)
	case o.Product == snp.Milan && o.signer() == snp.KeyVCEK:
		name = "Milan-B0"
	}
	b := extensionBuilder{}
	b.add(version, "", 1)
	b.add(name, "ia5", 2)
	for i := 1; i <= 9; i++ {
		if spl, ok := spls[i]; ok {
			b.add(int(spl), "", 3, i)
		}
	}
	if o.signer() == snp.KeyVLEK {
		b.add(o.VLEK, "ia5", 5)
	} else { // AMD puts the bare bytes there
		b.extensions = append(b.extensions, pkix.Extension{Id: snp.AMDArc(4), Value: o.ChipID[:o.Product.ChipIDSize()]})
	}
	return b.extensions, b.err
}

// extensionBuilder collects extensions and keeps the first error.
type extensionBuilder struct {
	extensions []pkix.Extension
	err        error
}

func (b *extensionBuilder) add(value any, params string, arcs ...int) {
	der, err := asn1.MarshalWithParams(value, params)
	if b.err == nil {
		b.err = err
	}
	b.extensions = append(b.extensions, pkix.Extension{Id: snp.AMDArc(arcs...), Value: der})
}
