// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"testing"
	"time"
)

func newCA(t *testing.T) (*CA, *ecdsa.PrivateKey) {
	t.Helper()
	c, err := New("c8s.example", 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func TestLeafOfAnotherTrustDomainDoesNotVerify(t *testing.T) {
	c, key := newCA(t)
	roots := x509.NewCertPool()
	roots.AddCert(c.Root())
	for _, tt := range []struct {
		domain string
		valid  bool
	}{{"c8s.example", true}, {"evil.example", false}} {
		from, to := c.Validity(time.Time{})
		leaf, err := c.Issue(&x509.Certificate{
			NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
			URIs: []*url.URL{{Scheme: "spiffe", Host: tt.domain, Path: "/node/a"}},
		}, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if (err == nil) != tt.valid {
			t.Errorf("%s: %v, want valid %v", tt.domain, err, tt.valid)
		}
	}
}

func TestNoLeafOutlivesAnHour(t *testing.T) {
	c, key := newCA(t)
	now := time.Now()
	for name, life := range map[string]time.Duration{"too long": MaxLife + time.Second, "none": 0, "negative": -time.Second} {
		if _, err := c.Issue(&x509.Certificate{NotBefore: now, NotAfter: now.Add(life)}, key.Public()); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestSerialsAreLongAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		if serial.Sign() <= 0 || serial.BitLen() > 128 || seen[serial.String()] {
			t.Fatalf("serial %s", serial)
		}
		seen[serial.String()] = true
	}
}
