// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRoot(t testing.TB, now time.Time) *Root {
	t.Helper()
	key := newKey(t)
	der, err := NewRoot("c8s.example", key, now)
	if err != nil {
		t.Fatal(err)
	}
	root, err := OpenRoot(der, key)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newIntermediate(t testing.TB, root *Root, now time.Time) *Intermediate {
	t.Helper()
	i, err := root.NewIntermediate("cds-0", now)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// newIssuer is ready to issue by the clock, which the test may set.
func newIssuer(t testing.TB, clock *time.Time, life time.Duration) *Issuer {
	t.Helper()
	root := newRoot(t, *clock)
	i, err := NewIssuer(root, life, func() time.Time { return *clock })
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Use(newIntermediate(t, root, *clock)); err != nil {
		t.Fatal(err)
	}
	return i
}

func leafTemplate(from, to time.Time, domain string) *x509.Certificate {
	return &x509.Certificate{
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain, Path: "/node/a"}},
	}
}

func TestChainEndsInTheRootAndStaysInTheTrustDomain(t *testing.T) {
	now := time.Now()
	i := newIssuer(t, &now, 0)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(i.Root())
	for domain, valid := range map[string]bool{"c8s.example": true, "evil.example": false} {
		from, to := i.Validity(time.Time{})
		leaf, chain, err := i.Issue(leafTemplate(from, to, domain), newKey(t).Public())
		if err != nil {
			t.Fatal(err)
		}
		if len(chain) != 2 || !bytes.Equal(chain[0], leaf.Raw) || !bytes.Equal(chain[1], i.Intermediate().Certificate().Raw) {
			t.Fatalf("%d certificates in the chain, or others than leaf and intermediate", len(chain))
		}
		between.AddCert(i.Intermediate().Certificate())
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if (err == nil) != valid {
			t.Errorf("%s: %v, want valid %v", domain, err, valid)
		}
	}
}

func TestIntermediateIsConfinedAndShortLived(t *testing.T) {
	now := time.Now()
	root := newRoot(t, now)
	c := newIntermediate(t, root, now).Certificate()
	if !c.IsCA || !c.MaxPathLenZero || c.MaxPathLen != 0 || root.Certificate().MaxPathLen != 1 {
		t.Errorf("path lengths %d and %d", c.MaxPathLen, root.Certificate().MaxPathLen)
	}
	if len(c.PermittedURIDomains) != 1 || c.PermittedURIDomains[0] != "c8s.example" || !c.PermittedDNSDomainsCritical {
		t.Errorf("it may name %q", c.PermittedURIDomains)
	}
	if c.Subject.CommonName != "c8s issuing CA cds-0" || c.NotAfter.Sub(now).Round(time.Minute) != IntermediateLife {
		t.Errorf("%q lives %s", c.Subject.CommonName, c.NotAfter.Sub(now))
	}
	other := newIntermediate(t, root, now)
	if other.key.Equal(newIntermediate(t, root, now).key) {
		t.Error("two intermediates have one key")
	}
	late := root.cert.NotAfter.Add(-time.Hour)
	if c := newIntermediate(t, root, late).Certificate(); c.NotAfter.After(root.cert.NotAfter) {
		t.Error("an intermediate outlives the root")
	}
	for _, name := range []string{"", "a b", "ä", strings.Repeat("a", maxReplica+1), "a\x00"} {
		if _, err := root.NewIntermediate(name, now); err == nil {
			t.Errorf("replica name %q accepted", name)
		}
	}
	if _, err := root.NewIntermediate(strings.Repeat("a", maxReplica), now); err != nil {
		t.Error(err)
	}
}

func TestNothingIsIssuedWithoutAUsableIntermediate(t *testing.T) {
	now := time.Now()
	i, err := NewIssuer(newRoot(t, now), 0, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	try := func() error {
		from, to := i.Validity(time.Time{})
		_, _, err := i.Issue(leafTemplate(from, to, "c8s.example"), newKey(t).Public())
		if ready := i.Ready(); (ready == nil) != (err == nil) {
			t.Errorf("Ready says %v, Issue %v", ready, err)
		}
		return err
	}
	if err := try(); !errors.Is(err, ErrNoIntermediate) {
		t.Errorf("without: %v", err)
	}
	if !i.RenewAt().IsZero() {
		t.Error("the first intermediate may wait")
	}
	if err := i.Use(newIntermediate(t, i.root, now)); err != nil {
		t.Fatal(err)
	}
	if renew := i.RenewAt().Sub(now); renew < IntermediateLife/2-skew || renew > IntermediateLife/2 {
		t.Errorf("renewed after %s", renew)
	}
	ends := i.Intermediate().cert.NotAfter
	for _, c := range []struct {
		left time.Duration
		want error
	}{{leastLeft, nil}, {leastLeft - time.Second, ErrNoIntermediate}, {-time.Hour, ErrNoIntermediate}} {
		now = ends.Add(-c.left)
		if err := try(); !errors.Is(err, c.want) {
			t.Errorf("with %s left: %v", c.left, err)
		}
	}
}

func TestForeignIntermediateIsNotUsed(t *testing.T) {
	now := time.Now()
	i := newIssuer(t, &now, 0)
	was := i.Intermediate()
	if err := i.Use(newIntermediate(t, newRoot(t, now), now)); err == nil || i.Intermediate() != was {
		t.Errorf("an intermediate of another root: %v", err)
	}
	if err := i.Use(nil); !errors.Is(err, ErrNoIntermediate) || i.Intermediate() != was {
		t.Errorf("no intermediate: %v", err)
	}
}

func TestIssuedLeafLivesNoLongerThanItMay(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, tt := range []struct {
		name              string
		life, limit, left time.Duration // limit and left from now; zero limit is none
		want              time.Duration
	}{
		{"default", 0, 0, IntermediateLife, MaxLife - skew},
		{"short", 10 * time.Second, 0, IntermediateLife, 10 * time.Second},
		{"the node's ends earlier", 10 * time.Second, 3 * time.Second, IntermediateLife, 3 * time.Second},
		{"the intermediate's ends earlier", 0, 0, 10 * time.Minute, 10 * time.Minute},
		{"both end earlier", 0, 7 * time.Minute, 10 * time.Minute, 7 * time.Minute},
	} {
		now := start
		i := newIssuer(t, &now, tt.life)
		now = i.Intermediate().cert.NotAfter.Add(-tt.left)
		var limit time.Time
		if tt.limit != 0 {
			limit = now.Add(tt.limit)
		}
		from, to := i.Validity(limit)
		if to.Sub(now) != tt.want || to.Sub(from) > MaxLife {
			t.Errorf("%s: ends in %s, want %s; whole life %s", tt.name, to.Sub(now), tt.want, to.Sub(from))
		}
		if _, _, err := i.Issue(leafTemplate(from, to, "c8s.example"), newKey(t).Public()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestIssuerRefusesBadLeaves(t *testing.T) {
	now := time.Now()
	i := newIssuer(t, &now, 0)
	ends := i.Intermediate().cert.NotAfter
	ca := leafTemplate(now, now.Add(time.Minute), "c8s.example")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	signs := leafTemplate(now, now.Add(time.Minute), "c8s.example")
	signs.KeyUsage |= x509.KeyUsageCertSign
	for name, tmpl := range map[string]*x509.Certificate{
		"too long":             leafTemplate(now, now.Add(MaxLife+time.Second), "c8s.example"),
		"no life":              leafTemplate(now, now, "c8s.example"),
		"negative life":        leafTemplate(now, now.Add(-time.Second), "c8s.example"),
		"outlives its issuer":  leafTemplate(ends.Add(-time.Minute), ends.Add(time.Second), "c8s.example"),
		"CA":                   ca,
		"may sign certificate": signs,
	} {
		if leaf, chain, err := i.Issue(tmpl, newKey(t).Public()); err == nil || leaf != nil || chain != nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestIssuerOptions(t *testing.T) {
	root := newRoot(t, time.Now())
	for name, c := range map[string]struct {
		root *Root
		life time.Duration
		now  func() time.Time
	}{
		"no root": {nil, 0, time.Now}, "no clock": {root, 0, nil}, "negative life": {root, -1, time.Now}, "too long": {root, MaxLife + 1, time.Now},
	} {
		if _, err := NewIssuer(c.root, c.life, c.now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOnlyRootsAsMadeAreOpened(t *testing.T) {
	now, key := time.Now(), newKey(t)
	der, err := NewRoot("c8s.example", key, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRoot(der, newKey(t)); err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("a root opened with another key: %v", err)
	}
	if _, err := ParseRoot(der, "evil.example"); err == nil {
		t.Error("a root of another trust domain is read")
	}
	flipped := bytes.Clone(der)
	flipped[len(flipped)-1] ^= 1
	root, err := OpenRoot(der, key)
	if err != nil || root.TrustDomain() != "c8s.example" {
		t.Fatal(err)
	}
	forged := map[string][]byte{
		"none": nil, "not signed by itself": flipped, "an intermediate": newIntermediate(t, root, now).cert.Raw,
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"no path length":                   func(c *x509.Certificate) { c.MaxPathLen = -1 },
		"longer paths":                     func(c *x509.Certificate) { c.MaxPathLen = 2 },
		"no CA":                            func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, -1 },
		"another use":                      func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature },
		"no constraint":                    func(c *x509.Certificate) { c.PermittedURIDomains, c.PermittedDNSDomainsCritical = nil, false },
		"a second domain":                  func(c *x509.Certificate) { c.PermittedURIDomains = append(c.PermittedURIDomains, "evil.example") },
		"a constraint that may be ignored": func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false },
	} {
		tmpl := authority("c8s.example", "c8s mesh CA", now, now.Add(time.Hour))
		tmpl.SerialNumber, tmpl.MaxPathLen = big.NewInt(1), 1
		edit(tmpl)
		if forged[name], err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key); err != nil {
			t.Fatal(name, err)
		}
	}
	for name, der := range forged {
		if _, err := OpenRoot(der, key); err == nil {
			t.Errorf("%s: opened", name)
		}
		if _, err := ParseRoot(der, "c8s.example"); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRoot("c8s.example", p384, now); err == nil {
		t.Error("a root on another curve is made")
	}
}

func FuzzParseRoot(f *testing.F) {
	key := newKey(f)
	der, err := NewRoot("c8s.example", key, time.Unix(1_700_000_000, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		if c, err := ParseRoot(der, "c8s.example"); err == nil && (!c.IsCA || c.MaxPathLen != 1) {
			t.Error("read something else than a root")
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	now := time.Now()
	i, key := newIssuer(b, &now, 0), newKey(b).Public()
	from, to := i.Validity(time.Time{})
	for b.Loop() {
		if _, _, err := i.Issue(leafTemplate(from, to, "c8s.example"), key); err != nil {
			b.Fatal(err)
		}
	}
}
