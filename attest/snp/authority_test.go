// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	fake "github.com/google/go-sev-guest/testing"
)

// testMachine is a leaf under a test root, whose keys are another project's.
type testMachine struct {
	product Product
	signer  SigningKey
	edit    func(ext map[string][]byte) // changes AMD's extensions
	names   func(root, intermediate, leaf *x509.Certificate)
}

func testClock() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) }

func testTemplate(cn string, serial int64, usage x509.KeyUsage) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: testClock().AddDate(-1, 0, 0), NotAfter: testClock().AddDate(1, 0, 0),
		IsCA: usage != 0, BasicConstraintsValid: usage != 0, KeyUsage: usage,
	}
}

func marshal(t testing.TB, v any, params string) []byte {
	t.Helper()
	b, err := asn1.MarshalWithParams(v, params)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// extensions are those AMD gives a leaf; the parts of the TCB are 1 to 5.
func (m testMachine) extensions(t testing.TB) []pkix.Extension {
	t.Helper()
	ext := map[string][]byte{
		"1": marshal(t, m.product.structVersion(), ""), "2": marshal(t, string(m.product), "ia5"),
		"3.1": {2, 1, 2}, "3.2": {2, 1, 3}, "3.3": {2, 1, 4}, "3.4": {2, 1, 0}, "3.5": {2, 1, 0}, "3.6": {2, 1, 0}, "3.7": {2, 1, 0}, "3.8": {2, 1, 5},
	}
	if m.product == Turin {
		ext["3.9"] = []byte{2, 1, 1}
		delete(ext, "3.4")
	}
	if m.signer == KeyVLEK {
		ext["5"] = marshal(t, "CN=cc-test", "ia5")
	} else {
		ext["4"] = append([]byte{0xC1}, make([]byte, m.product.ChipIDSize()-1)...)
	}
	if m.edit != nil {
		m.edit(ext)
	}
	var list []pkix.Extension
	for arcs, value := range ext {
		id := AMDArc(int(arcs[0] - '0'))
		if len(arcs) > 1 {
			id = append(id, int(arcs[2]-'0'))
		}
		list = append(list, pkix.Extension{Id: id, Value: value})
	}
	return list
}

// issue returns the chain and the leaf's key.
func (m testMachine) issue(t testing.TB) ([][]byte, *ecdsa.PrivateKey) {
	t.Helper()
	arkKey, askKey, key := fake.DefaultArk(), fake.DefaultAsk(), testKey(t)
	infix := ""
	if m.signer == KeyVLEK {
		infix = "VLEK-"
	}
	ark := testTemplate("ARK-"+string(m.product), 100, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	ask := testTemplate("SEV-"+infix+string(m.product), 101, x509.KeyUsageCertSign)
	leaf := testTemplate("SEV-"+m.signer.String(), 102, 0)
	leaf.ExtraExtensions = m.extensions(t)
	if m.names != nil {
		m.names(ark, ask, leaf)
	}
	ders := make([][]byte, 3)
	for i, c := range []struct {
		template, parent *x509.Certificate
		public, signer   any
	}{{leaf, ask, key.Public(), askKey}, {ask, ark, askKey.Public(), arkKey}, {ark, ark, arkKey.Public(), arkKey}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, c.parent, c.public, c.signer)
		if err != nil {
			t.Fatal(err)
		}
		ders[i] = der
	}
	return ders, key
}

func (m testMachine) chain(t testing.TB) (*Chain, *ecdsa.PrivateKey) {
	t.Helper()
	certs, key := m.issue(t)
	c, err := ParseChain(certs)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// testCRL makes a revocation list signed by the test root.
func testCRL(t testing.TB, root *x509.Certificate, edit func(*x509.RevocationList)) []byte {
	t.Helper()
	list := &x509.RevocationList{
		Number: big.NewInt(1), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		ThisUpdate: testClock().AddDate(0, -1, 0), NextUpdate: testClock().AddDate(0, 1, 0),
	}
	if edit != nil {
		edit(list)
	}
	issuer := *root
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, fake.DefaultArk())
	if err != nil {
		t.Fatal(err)
	}
	return der
}
