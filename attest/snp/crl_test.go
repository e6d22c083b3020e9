// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	fake "github.com/google/go-sev-guest/testing"

	"github.com/c8s-dev/c8s/attest"
)

func revoke(serials ...int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		for _, s := range serials {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: testClock()})
		}
	}
}

// TestRevocation covers what go-sev-guest leaves out: it never looks at the
// dates of a list it fetched, and looks up the ASK's serial only.
func TestRevocation(t *testing.T) {
	for _, signer := range []SigningKey{KeyVCEK, KeyVLEK} {
		chain, _ := testMachine{product: Milan, signer: signer}.chain(t)
		for name, c := range map[string]struct {
			edit func(*x509.RevocationList)
			at   time.Duration // after testClock
			code string
		}{
			"empty list":             {nil, 0, ""},
			"others revoked":         {revoke(1, 99, 103), 0, ""},
			"root revoked":           {revoke(1, 100), 0, CodeRevoked},
			"intermediate revoked":   {revoke(101), 0, CodeRevoked},
			"leaf revoked":           {revoke(102), 0, CodeRevoked},
			"expired":                {nil, 32 * 24 * time.Hour, CodeCRLExpired},
			"expired, also revoking": {revoke(102), 32 * 24 * time.Hour, CodeRevoked},
			"of the future":          {nil, -32 * 24 * time.Hour, CodeCRLExpired},
		} {
			crl, err := ParseCRL(testCRL(t, chain.Root, c.edit))
			if err != nil {
				t.Fatal(err)
			}
			if err := chain.CheckRevocation(crl, testClock().Add(c.at)); attest.FailureCode(err) != c.code || (err == nil) != (c.code == "") {
				t.Errorf("%s, %s: %v", signer, name, err)
			}
			if !crl.NextUpdate.Equal(testClock().AddDate(0, 1, 0)) || !crl.ThisUpdate.Equal(testClock().AddDate(0, -1, 0)) {
				t.Errorf("dates %s, %s", crl.ThisUpdate, crl.NextUpdate)
			}
		}
		for name, crl := range map[string]*CRL{"no list": nil, "zero list": {}} {
			if err := chain.CheckRevocation(crl, testClock()); attest.FailureCode(err) != CodeCRL {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestRevocationListsOfOthersAreRefused(t *testing.T) {
	milan, _ := testMachine{product: Milan}.chain(t)
	genoa, _ := testMachine{product: Genoa}.chain(t)
	issuer := *milan.Intermediate // same name as the root, another key
	issuer.RawSubject, issuer.Subject = milan.Root.RawSubject, milan.Root.Subject
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	issuer.SubjectKeyId = []byte{1}
	forged, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), SignatureAlgorithm: x509.SHA384WithRSAPSS, ThisUpdate: testClock(), NextUpdate: testClock().AddDate(0, 1, 0),
	}, &issuer, fake.DefaultAsk())
	if err != nil {
		t.Fatal(err)
	}
	noCRLs, _ := testMachine{product: Milan, names: func(root, _, _ *x509.Certificate) { root.KeyUsage = x509.KeyUsageCertSign }}.chain(t)
	for name, c := range map[string]struct {
		chain *Chain
		der   []byte
	}{
		"another product's root":  {milan, testCRL(t, genoa.Root, nil)},
		"another key":             {milan, forged},
		"another algorithm":       {milan, testCRL(t, milan.Root, func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.SHA256WithRSA })},
		"root may not sign lists": {noCRLs, testCRL(t, noCRLs.Root, nil)},
	} {
		crl, err := ParseCRL(c.der)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.chain.CheckRevocation(crl, testClock().Add(time.Hour)); attest.FailureCode(err) != CodeCRLIssuer {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIncompleteRevocationListsAreRefused(t *testing.T) {
	chain, _ := testMachine{product: Milan}.chain(t)
	critical := []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}} // deltaCRLIndicator
	good := testCRL(t, chain.Root, nil)
	for name, der := range map[string][]byte{
		"empty":     nil,
		"truncated": good[:len(good)-1],
		"too large": make([]byte, attest.MaxCollateralBody+1),
		"a delta":   testCRL(t, chain.Root, func(l *x509.RevocationList) { l.ExtraExtensions = critical }),
		"indirect": testCRL(t, chain.Root, func(l *x509.RevocationList) {
			revoke(7)(l)
			l.RevokedCertificateEntries[0].ExtraExtensions = critical
		}),
		"no nextUpdate": withoutNextUpdate(t, good),
	} {
		if crl, err := ParseCRL(der); attest.FailureCode(err) != CodeCRL {
			t.Errorf("%s: %v, %v", name, crl, err)
		}
	}
}

// withoutNextUpdate rewrites a list; its signature no longer matters.
func withoutNextUpdate(t testing.TB, der []byte) []byte {
	t.Helper()
	var list pkix.CertificateList //nolint:staticcheck // the only type that can be written
	if _, err := asn1.Unmarshal(der, &list); err != nil {
		t.Fatal(err)
	}
	list.TBSCertList.Raw, list.TBSCertList.NextUpdate = nil, time.Time{}
	return marshal(t, list, "")
}

func TestChangingAnyByteOfASignedListRefuses(t *testing.T) {
	chain, _ := testMachine{product: Milan}.chain(t)
	der := testCRL(t, chain.Root, revoke(7))
	for i := 0; i < len(der); i += 3 {
		der[i] ^= 1 << (i % 8)
		crl, err := ParseCRL(der)
		if err == nil {
			err = chain.CheckRevocation(crl, testClock())
		}
		if attest.FailureCode(err) == "" {
			t.Fatalf("a change at %d: %v", i, err)
		}
		der[i] ^= 1 << (i % 8)
	}
}
