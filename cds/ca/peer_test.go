// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/ratls/ratlstest"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// These tests show what ratls.VerifyPeer makes of the chains that this package
// issues, and of those it never would.

type world struct {
	now     time.Time
	rootKey *ecdsa.PrivateKey
	root    *ca.Root
	claims  ratls.Claims
	key     *ecdsa.PrivateKey // of the leaf
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newWorld(t testing.TB) *world {
	t.Helper()
	f := policytest.New(t)
	w := &world{now: time.Now(), rootKey: newKey(t), key: newKey(t), claims: ratlstest.Claims(policytest.Peer(f.Signed, policytest.Web))}
	der, err := ca.NewRoot(policytest.TrustDomain, w.rootKey, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if w.root, err = ca.OpenRoot(der, w.rootKey); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) template(t testing.TB, from, to time.Time) *x509.Certificate {
	t.Helper()
	id, err := ratls.NewID(policytest.TrustDomain, &w.claims)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := ratls.Template(w.claims.Role, id, w.claims, nil, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// issued returns what the issuer hands out.
func (w *world) issued(t testing.TB) []*x509.Certificate {
	t.Helper()
	issuer, err := ca.NewIssuer(w.root, 0, func() time.Time { return w.now })
	if err != nil {
		t.Fatal(err)
	}
	between, err := w.root.NewIntermediate("cds-0", w.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.Use(between); err != nil {
		t.Fatal(err)
	}
	from, to := issuer.Validity(time.Time{})
	_, chain, err := issuer.Issue(w.template(t, from, to), w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	return certs
}

func (w *world) sign(t testing.TB, tmpl, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	tmpl.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// between is an intermediate by hand, of the root's key, after the edit.
func (w *world) between(t testing.TB, edit func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "by hand"}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	edit(tmpl)
	return w.sign(t, tmpl, w.root.Certificate(), &key.PublicKey, w.rootKey), key
}

func (w *world) verify(chain ...*x509.Certificate) (*ratls.Peer, error) {
	roots := x509.NewCertPool()
	roots.AddCert(w.root.Certificate())
	return ratls.VerifyPeer(chain, roots, policytest.TrustDomain, w.now)
}

func TestPeersAcceptTheIssuedChain(t *testing.T) {
	w := newWorld(t)
	chain := w.issued(t)
	peer, err := w.verify(chain...)
	if err != nil {
		t.Fatal(err)
	}
	if peer.Claims.Workload != policytest.Web || !peer.NotAfter.Equal(chain[0].NotAfter) {
		t.Errorf("%+v", peer)
	}
}

func TestPeerEndsWithItsIntermediate(t *testing.T) {
	w := newWorld(t)
	soon := w.now.Add(10 * time.Minute).Truncate(time.Second)
	issuer, key := w.between(t, func(c *x509.Certificate) { c.NotAfter = soon })
	leaf := w.sign(t, w.template(t, w.now.Add(-time.Minute), w.now.Add(30*time.Minute)), issuer, &w.key.PublicKey, key)
	peer, err := w.verify(leaf, issuer)
	if err != nil {
		t.Fatal(err)
	}
	if !peer.NotAfter.Equal(soon) {
		t.Errorf("the peer ends at %s, its intermediate at %s", peer.NotAfter, soon)
	}
	w.now = soon.Add(time.Second)
	if _, err := w.verify(leaf, issuer); ratls.CodeOf(err) != ratls.CodeDates {
		t.Errorf("under an expired intermediate: %v", err)
	}
}

func TestPeersRefuseChainsThatAreNotOfTheRoot(t *testing.T) {
	w := newWorld(t)
	good := w.issued(t)
	leafOf := func(issuer *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
		return w.sign(t, w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute)), issuer, &w.key.PublicKey, key)
	}
	chainOf := func(edit func(*x509.Certificate)) []*x509.Certificate {
		issuer, key := w.between(t, edit)
		return []*x509.Certificate{leafOf(issuer, key), issuer}
	}
	other := newWorld(t)
	foreign := other.issued(t)

	below, belowKey := w.between(t, func(*x509.Certificate) {})
	deeperKey := newKey(t)
	deeper := w.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "deeper"}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, below, &deeperKey.PublicKey, belowKey)

	for name, chain := range map[string][]*x509.Certificate{
		"without the intermediate":          good[:1],
		"under another's intermediate":      {good[0], foreign[1]},
		"of another root":                   foreign,
		"of another root, root sent along":  append(foreign[:2:2], other.root.Certificate()),
		"of an intermediate's intermediate": {leafOf(deeper, deeperKey), deeper, below},
		"of a leaf":                         {leafOf(good[0], w.key), good[0], good[1]},
		"issuer confined to another domain": chainOf(func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"other.test"}, true
		}),
		"issuer excludes the domain": chainOf(func(c *x509.Certificate) {
			c.ExcludedURIDomains, c.PermittedDNSDomainsCritical = []string{policytest.TrustDomain}, true
		}),
		"issuer is no CA":     chainOf(func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }),
		"issuer may not sign": chainOf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }),
		"issuer's own name is elsewhere": chainOf(func(c *x509.Certificate) {
			c.URIs = w.template(t, w.now, w.now.Add(1)).URIs
			c.URIs[0].Host = "other.test"
		}),
	} {
		if _, err := w.verify(chain...); ratls.CodeOf(err) != ratls.CodeChain {
			t.Errorf("%s: %v", name, err)
		}
	}
	expired := chainOf(func(c *x509.Certificate) { c.NotAfter = w.now.Add(-time.Second) })
	if _, err := w.verify(expired...); ratls.CodeOf(err) != ratls.CodeDates {
		t.Errorf("an expired intermediate: %v", err)
	}
}

// Whoever holds the root's key can make any intermediate, so refusing leaves
// directly under the root would keep nobody out. That the key issues nothing
// unseen is the log's to show, not the chain's.
func TestPeersAcceptALeafDirectlyUnderTheRoot(t *testing.T) {
	w := newWorld(t)
	leaf := w.sign(t, w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute)), w.root.Certificate(), &w.key.PublicKey, w.rootKey)
	if _, err := w.verify(leaf); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerifyPeer(b *testing.B) {
	w := newWorld(b)
	direct := w.template(b, w.now.Add(-time.Minute), w.now.Add(time.Minute))
	for name, chain := range map[string][]*x509.Certificate{
		"direct":       {w.sign(b, direct, w.root.Certificate(), &w.key.PublicKey, w.rootKey)},
		"intermediate": w.issued(b),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := w.verify(chain...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
