// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/x509"
	"testing"

	"github.com/c8s-dev/c8s/attest"
)

func FuzzParseReport(f *testing.F) {
	key := testKey(f)
	for v := uint32(minVersion); v <= maxVersion; v++ {
		f.Add(compose(f, sampleReport(v), key))
	}
	for _, p := range Products() {
		f.Add(compose(f, reportOf(testMachine{product: p}), key))
	}
	for _, c := range realCases() {
		f.Add(c.raw(f))
	}
	f.Add([]byte{})
	chain := &Chain{Leaf: &x509.Certificate{PublicKey: testKey(f).Public()}}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if (err == nil) != (r != nil) || err != nil && attest.FailureCode(err) == "" {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			return
		}
		if [ReportSize]byte(b) != r.raw {
			t.Error("the received bytes were not kept")
		}
		if p, err := r.Product("Milan"); err == nil {
			_, _ = r.TCBs(p)
		}
		if chain.VerifySignature(r) == nil {
			t.Error("a signature by an unrelated key was accepted")
		}
	})
}

func FuzzParseCertTable(f *testing.F) {
	f.Add((&CertTable{VCEK: []byte{1}, ASK: []byte{2}, ARK: []byte{3}}).Marshal())
	f.Add(table(1400, entry{guidVCEK(), 0xffffffff, 2}))
	f.Add(make([]byte, certEntrySize))
	for _, c := range realCases() {
		certs := c.certs(f)
		t := &CertTable{ASK: certs[1], ARK: certs[2]}
		if c.signer == KeyVLEK {
			t.VLEK = certs[0]
		} else {
			t.VCEK = certs[0]
		}
		f.Add(t.Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseCertTable(b)
		if err != nil {
			if attest.FailureCode(err) != CodeCertTable {
				t.Error(err)
			}
			return
		}
		for _, field := range got.fields() {
			if !bytes.Contains(b, *field.to) {
				t.Errorf("%x is not of the table", field.guid)
			}
		}
		for _, signer := range []SigningKey{KeyVCEK, KeyVLEK} {
			if certs, err := got.Chain(signer); err == nil && (len(certs) == 0 || len(certs) > chainLength) {
				t.Errorf("%d certificates", len(certs))
			}
		}
	})
}

func FuzzParseChain(f *testing.F) {
	f.Add([]byte{}, []byte{}, []byte{})
	for _, c := range realCases() {
		certs := c.certs(f)
		f.Add(certs[0], certs[1], certs[2])
	}
	for _, p := range Products() {
		certs, _ := testMachine{product: p}.issue(f)
		f.Add(certs[0], certs[1], certs[2])
	}
	f.Fuzz(func(t *testing.T, leaf, intermediate, root []byte) {
		c, err := ParseChain([][]byte{leaf, intermediate, root})
		if err != nil {
			if attest.FailureCode(err) == "" {
				t.Error(err)
			}
			return
		}
		if err := c.Verify(); err != nil && attest.FailureCode(err) != CodeChain {
			t.Error(err)
		}
		e := c.Endorsement
		if (e.Signer == KeyVCEK) != (len(e.ChipID) == e.Product.ChipIDSize()) || (e.Signer == KeyVLEK) != (e.CSPID != "") {
			t.Errorf("%+v", e)
		}
	})
}

func FuzzParseCRL(f *testing.F) {
	chain, _ := testMachine{product: Milan}.chain(f)
	good := testCRL(f, chain.Root, revoke(1, 2, 3))
	f.Add(good)
	f.Add(testCRL(f, chain.Root, revoke(102)))
	f.Add(withoutNextUpdate(f, good))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		crl, err := ParseCRL(der)
		if err != nil {
			if attest.FailureCode(err) != CodeCRL {
				t.Error(err)
			}
			return
		}
		if crl.NextUpdate.IsZero() {
			t.Error("no end")
		}
		if err := chain.CheckRevocation(crl, testClock()); err != nil && attest.FailureCode(err) == "" {
			t.Error(err)
		}
	})
}
