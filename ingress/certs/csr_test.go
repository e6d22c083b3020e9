// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// office is a CA that signs requests by hand: a root and an issuer below it.
type office struct {
	w                  *world
	rootKey, issuerKey *ecdsa.PrivateKey
	root, issuer       *x509.Certificate
	request, chain     string
	serial             int64
}

func newOffice(t *testing.T, names ...string) *office {
	t.Helper()
	o := &office{w: newWorld(t, names...), rootKey: mustKey(t), issuerKey: mustKey(t)}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(400 * 24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	parse := func(der []byte) *x509.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	o.root = parse(sign(t, ca("root"), nil, &o.rootKey.PublicKey, o.rootKey))
	o.issuer = parse(sign(t, ca("issuer"), o.root, &o.issuerKey.PublicKey, o.rootKey))
	o.request, o.chain = filepath.Join(o.w.dir, "request.pem"), filepath.Join(o.w.dir, "chain.pem")
	o.w.cfg.CSR = &CSR{Request: o.request, Chain: o.chain, Root: pemOf(o.root.Raw)}
	return o
}

// asked reads the request and checks that it proves possession of its key.
func (o *office) asked() *x509.CertificateRequest {
	o.w.t.Helper()
	raw, err := os.ReadFile(o.request)
	if err != nil {
		o.w.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || r.CheckSignature() != nil {
		o.w.t.Fatalf("the request: %v", err)
	}
	return r
}

func (o *office) sign(edit func(c *x509.Certificate)) []byte {
	o.w.t.Helper()
	return o.signFor(o.asked().PublicKey.(*ecdsa.PublicKey), edit)
}

func (o *office) signFor(key *ecdsa.PublicKey, edit func(c *x509.Certificate)) []byte {
	o.w.t.Helper()
	o.serial++
	now := o.w.clock.now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(100 + o.serial), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(30 * 24 * time.Hour), DNSNames: o.asked().DNSNames,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(c)
	}
	return sign(o.w.t, c, o.issuer, key, o.issuerKey)
}

// hand puts a chain into its file.
func (o *office) hand(content []byte) {
	o.w.t.Helper()
	if err := os.WriteFile(o.chain, content, 0o600); err != nil {
		o.w.t.Fatal(err)
	}
}

func TestSignedRequestIsServed(t *testing.T) {
	o := newOffice(t, "*.bank.example", "bank.example")
	s := o.w.open()
	s.step(t.Context())
	if r := wantProblem(t, s, "bank.example", CodeMissing); !strings.Contains(r.Remedy, o.request) {
		t.Errorf("%v", r)
	}
	if got := o.asked().DNSNames; !slices.Equal(got, o.w.cfg.Names) {
		t.Errorf("the request is for %v", got)
	}
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")
	o.w.wantValid("bank.example", pemOf(o.root.Raw))
	leaf := o.w.wantValid("a.bank.example", pemOf(o.root.Raw))
	before := o.asked().Raw
	s = o.w.open()
	s.step(t.Context())
	if again := o.w.wantValid("bank.example", pemOf(o.root.Raw)); !again.Equal(leaf) || !slices.Equal(o.asked().Raw, before) {
		t.Error("another certificate or request after a restart")
	}
	o.w.clock.move(21 * 24 * time.Hour)
	s.step(t.Context())
	wantProblem(t, s, "bank.example", CodeRenewalDue)
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")

	// Another name takes another request; until then the others are served.
	if err := s.SetNames([]string{"bank.example", "new.example"}); err != nil {
		t.Fatal(err)
	}
	s.step(t.Context())
	wantProblem(t, s, "new.example", CodeNames)
	o.w.wantValid("bank.example", pemOf(o.root.Raw))
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	o.w.wantValid("new.example", pemOf(o.root.Raw))
}

func TestChainThatBreaksARuleIsRefusedAndTheOldOneStays(t *testing.T) {
	o := newOffice(t, "bank.example")
	s := o.w.open()
	s.step(t.Context())
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	served := stateOf(t, s, "bank.example")
	foreign, stranger := mustKey(t), newOffice(t, "bank.example")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(foreign)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	ours := o.asked().PublicKey.(*ecdsa.PublicKey)
	stranger.request = o.request
	for name, tt := range map[string]struct {
		content    []byte
		code, rule string
	}{
		"key outside the TEE":    {pemOf(o.signFor(&foreign.PublicKey, nil), o.issuer.Raw), CodeForeignKey, "certificate for a key outside the TEE"},
		"with its private key":   {append(pemOf(o.signFor(&foreign.PublicKey, nil)), private...), CodeUnreadable, "form"},
		"other names":            {pemOf(o.sign(func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }), o.issuer.Raw), CodeNames, "names"},
		"expired":                {pemOf(o.sign(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), o.issuer.Raw), CodeDates, "dates"},
		"not valid yet":          {pemOf(o.sign(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(48 * time.Hour) }), o.issuer.Raw), CodeDates, "dates"},
		"a CA":                   {pemOf(o.sign(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), o.issuer.Raw), CodeUsage, "use"},
		"for clients":            {pemOf(o.sign(func(c *x509.Certificate) { c.ExtKeyUsage[0] = x509.ExtKeyUsageClientAuth }), o.issuer.Raw), CodeUsage, "use"},
		"issuer missing":         {pemOf(o.sign(nil)), CodeRoot, "root"},
		"issuer before the leaf": {pemOf(o.issuer.Raw, o.sign(nil)), CodeForeignKey, "key outside"},
		"order of issuers":       {pemOf(o.sign(nil), o.root.Raw, o.issuer.Raw), CodeChain, "order"},
		"another root":           {pemOf(stranger.signFor(ours, nil), stranger.issuer.Raw), CodeRoot, "root"},
		"empty":                  {nil, CodeUnreadable, "form"},
		"garbage":                {[]byte("garbage"), CodeUnreadable, "form"},
		"garbage in PEM":         {pemOf([]byte("garbage")), CodeUnreadable, "issuers"},
		"half":                   {pemOf(o.sign(nil), o.issuer.Raw)[:700], CodeUnreadable, "form"},
		"text after it":          {append(pemOf(o.sign(nil), o.issuer.Raw), "more"...), CodeUnreadable, "form"},
		"the request":            {mustRead(t, o.request), CodeUnreadable, "form"},
		"huge":                   {make([]byte, maxChainPEM+1), CodeUnreadable, "form"},
		"a chain without end":    {pemOf(slices.Repeat([][]byte{o.sign(nil)}, maxChain+1)...), CodeUnreadable, "issuers"},
	} {
		o.hand(tt.content)
		s.step(t.Context())
		if r := wantProblem(t, s, "bank.example", tt.code); !strings.Contains(r.Rule, tt.rule) {
			t.Errorf("%s: %v", name, r)
		}
		if st := stateOf(t, s, "bank.example"); st.Serial != served.Serial || st.State != StateValid {
			t.Errorf("%s: served is %v", name, st)
		}
		o.w.wantValid("bank.example", pemOf(o.root.Raw))
	}
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.Serial == served.Serial || st.Problem != nil {
		t.Errorf("after all that: %v", st)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRotationTakesANewSignature(t *testing.T) {
	o := newOffice(t, "bank.example")
	o.w.cfg.KeyPeriod = 10 * 24 * time.Hour
	s := o.w.open()
	s.step(t.Context())
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	served, before := stateOf(t, s, "bank.example"), o.asked()
	o.w.clock.move(11 * 24 * time.Hour)
	s.step(t.Context())
	if st := wantProblem(t, s, "bank.example", CodeRenewalDue); !strings.Contains(st.Expected, s.state.keys[0].hex()) {
		t.Errorf("%v", st)
	}
	if slices.Equal(o.asked().RawSubjectPublicKeyInfo, before.RawSubjectPublicKeyInfo) || len(s.Keys()) != 2 {
		t.Fatal("no request for the new key")
	}
	if st := stateOf(t, s, "bank.example"); st.Serial != served.Serial {
		t.Errorf("%v", st)
	}
	o.hand(pemOf(o.sign(nil), o.issuer.Raw))
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")
	if len(s.Keys()) != 1 {
		t.Error("the former key is still here")
	}
}
