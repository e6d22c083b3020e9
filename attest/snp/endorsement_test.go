// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/x509"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// reportOf is a report that agrees with a testMachine's certificate.
func reportOf(m testMachine) *Report {
	r := sampleReport(5)
	r.SigningKey, r.ChipID = m.signer, [64]byte{}
	if m.signer == KeyVCEK {
		r.ChipID[0] = 0xC1
	}
	r.CPUID = map[Product]CPUID{Milan: {0x19, 1, 1}, Genoa: {0x19, 0xA0, 2}, Turin: {0x1A, 0x11, 0}}[m.product]
	r.Reported = RawTCB{2, 3, 0, 0, 0, 0, 4, 5}
	if m.product == Turin {
		r.Reported = RawTCB{1, 2, 3, 4, 0, 0, 0, 5}
	}
	r.Current, r.Committed, r.Launch = r.Reported, r.Reported, r.Reported
	return r
}

func TestEveryProductAndSignerVerifies(t *testing.T) {
	for _, product := range Products() {
		for _, signer := range []SigningKey{KeyVCEK, KeyVLEK} {
			m := testMachine{product: product, signer: signer}
			chain, key := m.chain(t)
			r, err := ParseReport(compose(t, reportOf(m), key))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(r, chain, product, testClock()); err != nil {
				t.Errorf("%s %s: %v", product, signer, err)
			}
			e := chain.Endorsement
			want := policy.TCB{BootLoader: 2, TEE: 3, SNP: 4, Microcode: 5}
			if product == Turin {
				want.FMC = 1
			}
			if e.TCB != want || e.Signer != signer || (e.ChipID == nil) != (signer == KeyVLEK) || (e.CSPID == "CN=cc-test") != (signer == KeyVLEK) {
				t.Errorf("%s %s: %+v", product, signer, e)
			}
			if got, err := r.TCBs(product); err != nil || got != (TCBs{want, want, want, want}) {
				t.Errorf("%s: %+v, %v", product, got, err)
			}
		}
	}
}

func TestTCBLayouts(t *testing.T) {
	for product, c := range map[Product]struct {
		raw  RawTCB
		want policy.TCB
	}{
		Milan: {RawTCB{1, 2, 0, 0, 0, 0, 3, 4}, policy.TCB{BootLoader: 1, TEE: 2, SNP: 3, Microcode: 4}},
		Genoa: {RawTCB{1, 2, 0, 0, 0, 0, 3, 4}, policy.TCB{BootLoader: 1, TEE: 2, SNP: 3, Microcode: 4}},
		Turin: {RawTCB{9, 1, 2, 3, 0, 0, 0, 4}, policy.TCB{FMC: 9, BootLoader: 1, TEE: 2, SNP: 3, Microcode: 4}},
	} {
		got, err := product.TCB(c.raw)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", product, got, err)
		}
		if raw, err := product.RawTCB(got); err != nil || raw != c.raw {
			t.Errorf("%s back: %x, %v", product, raw, err)
		}
		for i := range c.raw {
			used := c.raw[i] != 0
			var raw RawTCB
			raw[i] = 1
			if _, err := product.TCB(raw); (err == nil) != used || !used && attest.FailureCode(err) != CodeTCBReserved {
				t.Errorf("%s, byte %d: %v", product, i, err)
			}
		}
	}
	if _, err := Milan.RawTCB(policy.TCB{FMC: 1}); attest.FailureCode(err) != CodeTCBReserved {
		t.Errorf("FMC on Milan: %v", err)
	}
	if _, err := Product("Venice").TCB(RawTCB{}); attest.FailureCode(err) != CodeProductUnknown {
		t.Errorf("Venice: %v", err)
	}
}

// TestTurinRefusesMilansShapes has the three points in which Turin differs: the
// order of the TCB, the FMC's SPL, the chip id of 8 bytes.
func TestTurinRefusesMilansShapes(t *testing.T) {
	m := testMachine{product: Turin}
	chain, key := m.chain(t)
	for name, c := range map[string]struct {
		edit func(*Report)
		code string
	}{
		"TCB in Milan's order":      {func(r *Report) { r.Reported = RawTCB{2, 3, 0, 0, 0, 0, 4, 5} }, CodeTCBReserved},
		"another FMC":               {func(r *Report) { r.Reported[0]++ }, CodeEndorsedTCB},
		"another microcode":         {func(r *Report) { r.Reported[7]-- }, CodeEndorsedTCB},
		"another chip":              {func(r *Report) { r.ChipID[7] = 1 }, CodeEndorsedChip},
		"chip id of 9 bytes":        {func(r *Report) { r.ChipID[8] = 1 }, CodeEndorsedChip},
		"chip id to the last byte":  {func(r *Report) { r.ChipID[63] = 1 }, CodeEndorsedChip},
		"masked chip":               {func(r *Report) { r.MaskChipKey = true }, CodeEndorsedChip},
		"no chip":                   {func(r *Report) { r.ChipID = [64]byte{} }, CodeEndorsedChip},
		"a Genoa of the same parts": {func(r *Report) { r.CPUID = CPUID{0x19, 0x11, 1} }, CodeProductMismatch},
	} {
		edited := reportOf(m)
		c.edit(edited)
		r, err := ParseReport(compose(t, edited, key))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAll(r, chain, "", testClock()); attest.FailureCode(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtensionsAreHeldToTheProductAndTheKind(t *testing.T) {
	set := func(arcs string, value ...byte) func(map[string][]byte) {
		return func(ext map[string][]byte) { ext[arcs] = value }
	}
	without := func(arcs string) func(map[string][]byte) {
		return func(ext map[string][]byte) { delete(ext, arcs) }
	}
	for name, c := range map[string]struct {
		m  testMachine
		ok bool
	}{
		"Turin with SPL 4 zero":       {testMachine{product: Turin, edit: set("3.4", 2, 1, 0)}, true},
		"chip id in an OCTET STRING":  {testMachine{product: Turin, edit: set("4", 4, 8, 0xC1, 0, 0, 0, 0, 0, 0, 0)}, true},
		"Siena's name":                {testMachine{product: Genoa, edit: set("2", 0x16, 5, 'S', 'i', 'e', 'n', 'a')}, true},
		"a stepping":                  {testMachine{product: Milan, edit: set("2", 0x16, 8, 'M', 'i', 'l', 'a', 'n', '-', 'B', '1')}, true},
		"Turin with SPL 4":            {testMachine{product: Turin, edit: set("3.4", 2, 1, 1)}, false},
		"Turin without FMC":           {testMachine{product: Turin, edit: without("3.9")}, false},
		"Turin of structure 0":        {testMachine{product: Turin, edit: set("1", 2, 1, 0)}, false},
		"Turin with 64 bytes of chip": {testMachine{product: Turin, edit: set("4", make([]byte, 64)...)}, false},
		"Milan with FMC":              {testMachine{product: Milan, edit: set("3.9", 2, 1, 1)}, false},
		"Milan of structure 1":        {testMachine{product: Milan, edit: set("1", 2, 1, 1)}, false},
		"Milan with 8 bytes of chip":  {testMachine{product: Milan, edit: set("4", make([]byte, 8)...)}, false},
		"Milan without SPL 4":         {testMachine{product: Milan, edit: without("3.4")}, false},
		"no chip and no provider":     {testMachine{product: Milan, edit: without("4")}, false},
		"chip and provider":           {testMachine{product: Milan, edit: set("5", 0x16, 1, 'a')}, false},
		"VLEK with a chip":            {testMachine{product: Turin, signer: KeyVLEK, edit: set("4", make([]byte, 8)...)}, false},
		"provider without a name":     {testMachine{product: Milan, signer: KeyVLEK, edit: set("5", 0x16, 0)}, false},
		"provider in UTF-8":           {testMachine{product: Milan, signer: KeyVLEK, edit: set("5", 0x0c, 1, 'a')}, false},
		"provider with a new line":    {testMachine{product: Milan, signer: KeyVLEK, edit: set("5", 0x16, 1, '\n')}, false},
		"SPL above a byte":            {testMachine{product: Milan, edit: set("3.8", 2, 2, 1, 0)}, false},
		"negative SPL":                {testMachine{product: Milan, edit: set("3.8", 2, 1, 0x80)}, false},
		"unknown extension":           {testMachine{product: Milan, edit: set("6", 2, 1, 0)}, false},
		"structure 2":                 {testMachine{product: Turin, edit: set("1", 2, 1, 2)}, false},
	} {
		certs, _ := c.m.issue(t)
		_, err := ParseChain(certs)
		if (err == nil) != c.ok || err != nil && attest.FailureCode(err) != CodeEndorsement {
			t.Errorf("%s: %v", name, err)
		}
	}
	certs, _ := testMachine{product: Milan, edit: set("2", 0x16, 6, 'V', 'e', 'n', 'i', 'c', 'e')}.issue(t)
	if _, err := ParseChain(certs); attest.FailureCode(err) != CodeProductUnknown {
		t.Errorf("Venice: %v", err)
	}
}

func TestNamesOfIssuersAreHeldToTheLeaf(t *testing.T) {
	for name, m := range map[string]testMachine{
		"VCEK under an ASVK":       {product: Milan, names: func(_, i, _ *x509.Certificate) { i.Subject.CommonName = "SEV-VLEK-Milan" }},
		"VLEK under an ASK":        {product: Milan, signer: KeyVLEK, names: func(_, i, _ *x509.Certificate) { i.Subject.CommonName = "SEV-Milan" }},
		"issuer of another":        {product: Milan, names: func(_, i, _ *x509.Certificate) { i.Subject.CommonName = "SEV-Genoa" }},
		"root of another":          {product: Milan, names: func(r, _, _ *x509.Certificate) { r.Subject.CommonName = "ARK-Genoa" }},
		"VLEK's name on a VCEK":    {product: Turin, names: func(_, _, l *x509.Certificate) { l.Subject.CommonName = "SEV-VLEK" }},
		"a mark without the words": {product: Turin, names: func(_, _, l *x509.Certificate) { l.Subject.CommonName = "SIMULATED SEV-VCEK" }},
		"leaf that may issue": {product: Turin, names: func(_, _, l *x509.Certificate) {
			l.IsCA, l.BasicConstraintsValid, l.KeyUsage = true, true, x509.KeyUsageCertSign
		}},
		"issuer that may not": {product: Turin, names: func(_, i, _ *x509.Certificate) {
			i.IsCA, i.KeyUsage = false, 0
		}},
		"SHA-256": {product: Turin, names: func(_, _, l *x509.Certificate) { l.SignatureAlgorithm = x509.SHA256WithRSAPSS }},
	} {
		chain, _ := m.chain(t)
		if err := chain.Verify(); attest.FailureCode(err) != CodeChain {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOversizeChainsAreRefusedBeforeParsing(t *testing.T) {
	certs, _ := testMachine{product: Milan}.issue(t)
	certs[1] = append(bytes.Clone(certs[1]), make([]byte, attest.MaxCert)...)
	if _, err := ParseChain(certs); attest.FailureCode(err) != CodeCertificate {
		t.Errorf("large: %v", err)
	}
	for n := range 6 {
		if _, err := ParseChain(make([][]byte, n)); n != 3 && attest.FailureCode(err) != CodeCertificates {
			t.Errorf("%d: %v", n, err)
		}
	}
}
