// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
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
	issuers *ratls.Issuers
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
	w := &world{now: time.Now(), issuers: ratls.NewIssuers(), rootKey: newKey(t), key: newKey(t), claims: ratlstest.Claims(policytest.Peer(f.Signed, policytest.Web))}
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

// verify asks with and without a memory of issuers, which must not matter.
func (w *world) verify(t testing.TB, chain ...*x509.Certificate) (*ratls.Peer, error) {
	t.Helper()
	peer, err := ratls.VerifyPeer(chain, w.roots(), policytest.TrustDomain, w.now)
	for _, ask := range []string{"first", "again"} {
		other, otherErr := w.issuers.VerifyPeer(chain, w.roots(), policytest.TrustDomain, w.now)
		if ratls.CodeOf(err) != ratls.CodeOf(otherErr) || (err == nil) != (otherErr == nil) || peer != nil && !peer.NotAfter.Equal(other.NotAfter) {
			t.Errorf("asked %s, with a memory of issuers: %v, without: %v", ask, otherErr, err)
		}
	}
	return peer, err
}

func (w *world) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(w.root.Certificate())
	return roots
}

func TestPeersAcceptTheIssuedChain(t *testing.T) {
	w := newWorld(t)
	chain := w.issued(t)
	peer, err := w.verify(t, chain...)
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
	peer, err := w.verify(t, leaf, issuer)
	if err != nil {
		t.Fatal(err)
	}
	if !peer.NotAfter.Equal(soon) {
		t.Errorf("the peer ends at %s, its intermediate at %s", peer.NotAfter, soon)
	}
	w.now = soon.Add(time.Second)
	if _, err := w.verify(t, leaf, issuer); ratls.CodeOf(err) != ratls.CodeDates {
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
		if _, err := w.verify(t, chain...); ratls.CodeOf(err) != ratls.CodeChain {
			t.Errorf("%s: %v", name, err)
		}
	}
	expired := chainOf(func(c *x509.Certificate) { c.NotAfter = w.now.Add(-time.Second) })
	if _, err := w.verify(t, expired...); ratls.CodeOf(err) != ratls.CodeDates {
		t.Errorf("an expired intermediate: %v", err)
	}
}

func TestMemoryOfIssuersHoldsForItsRootsAndTimeOnly(t *testing.T) {
	w := newWorld(t)
	chain := w.issued(t)
	if _, err := w.verify(t, chain...); err != nil { // remembered from here on
		t.Fatal(err)
	}
	ask := func(roots *x509.CertPool, now time.Time) ratls.Code {
		_, err := w.issuers.VerifyPeer(chain, roots, policytest.TrustDomain, now)
		return ratls.CodeOf(err)
	}
	if code := ask(newWorld(t).roots(), w.now); code != ratls.CodeChain {
		t.Errorf("under other roots: %q", code)
	}
	if code := ask(x509.NewCertPool(), w.now); code != ratls.CodeChain {
		t.Errorf("under no roots: %q", code)
	}
	if code := ask(w.roots(), chain[0].NotAfter.Add(time.Second)); code != ratls.CodeDates {
		t.Errorf("after the leaf: %q", code)
	}
	if code := ask(w.roots(), chain[1].NotAfter.Add(time.Second)); code != ratls.CodeDates {
		t.Errorf("after the intermediate: %q", code)
	}
	if code := ask(w.roots(), w.root.Certificate().NotAfter.Add(time.Second)); code != ratls.CodeDates {
		t.Errorf("after the root: %q", code)
	}
	forged := *chain[0]
	forged.Signature = append([]byte(nil), chain[0].Signature...)
	forged.Signature[len(forged.Signature)-1] ^= 1
	if _, err := w.verify(t, &forged, chain[1]); ratls.CodeOf(err) != ratls.CodeChain {
		t.Errorf("a forged leaf under a known issuer: %v", err)
	}
	// An intermediate without the root's constraints is not remembered, so a
	// leaf outside of them is still refused.
	issuer, key := w.between(t, func(*x509.Certificate) {})
	inside := w.sign(t, w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute)), issuer, &w.key.PublicKey, key)
	if _, err := w.verify(t, inside, issuer); err != nil {
		t.Fatal(err)
	}
	tmpl := w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute))
	tmpl.URIs[0].Host = "other.test"
	if _, err := w.verify(t, w.sign(t, tmpl, issuer, &w.key.PublicKey, key), issuer); ratls.CodeOf(err) != ratls.CodeChain {
		t.Errorf("a leaf outside of the root's constraints: %v", err)
	}
}

// Whoever holds the root's key can make any intermediate, so refusing leaves
// directly under the root would keep nobody out. That the key issues nothing
// unseen is the log's to show, not the chain's.
func TestPeersAcceptALeafDirectlyUnderTheRoot(t *testing.T) {
	w := newWorld(t)
	leaf := w.sign(t, w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute)), w.root.Certificate(), &w.key.PublicKey, w.rootKey)
	if _, err := w.verify(t, leaf); err != nil {
		t.Error(err)
	}
}

func (w *world) chains(t testing.TB) map[string][]*x509.Certificate {
	t.Helper()
	direct := w.template(t, w.now.Add(-time.Minute), w.now.Add(time.Minute))
	return map[string][]*x509.Certificate{
		"direct":       {w.sign(t, direct, w.root.Certificate(), &w.key.PublicKey, w.rootKey)},
		"intermediate": w.issued(t),
	}
}

// verifiers are the ways to verify, by name.
func (w *world) verifiers() map[string]func([]*x509.Certificate) error {
	roots := w.roots()
	return map[string]func([]*x509.Certificate) error{
		"new": func(c []*x509.Certificate) error {
			_, err := ratls.VerifyPeer(c, roots, policytest.TrustDomain, w.now)
			return err
		},
		"known": func(c []*x509.Certificate) error {
			_, err := w.issuers.VerifyPeer(c, roots, policytest.TrustDomain, w.now)
			return err
		},
	}
}

func BenchmarkVerifyPeer(b *testing.B) {
	w := newWorld(b)
	for name, chain := range w.chains(b) {
		for how, verify := range w.verifiers() {
			b.Run(name+"/"+how, func(b *testing.B) {
				for b.Loop() {
					if err := verify(chain); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkHandshake is both sides of a mutual handshake, over memory.
func BenchmarkHandshake(b *testing.B) {
	w := newWorld(b)
	for name, chain := range w.chains(b) {
		for how, verify := range w.verifiers() {
			b.Run(name+"/"+how, func(b *testing.B) { w.handshakes(b, chain, verify) })
		}
	}
}

func (w *world) handshakes(b *testing.B, chain []*x509.Certificate, verify func([]*x509.Certificate) error) {
	own := tls.Certificate{PrivateKey: w.key, Leaf: chain[0]}
	for _, c := range chain {
		own.Certificate = append(own.Certificate, c.Raw)
	}
	check := func(cs tls.ConnectionState) error { return verify(cs.PeerCertificates) }
	server := ratls.ServerConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil }, check)
	client := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }, check)
	for b.Loop() {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- tls.Server(far, server).Handshake() }()
		if err := errors.Join(tls.Client(near, client).Handshake(), <-served); err != nil {
			b.Fatal(err)
		}
		near.Close()
		far.Close()
	}
}
