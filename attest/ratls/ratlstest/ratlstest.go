// SPDX-License-Identifier: Apache-2.0

// Package ratlstest issues certificates for tests: what it hands out passes
// ratls.VerifyPeer and the manifest it was made for, unless an edit breaks it.
package ratlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/policy"
)

// CA is a test issuer in place of a CDS: a root and an intermediate.
type CA struct {
	TrustDomain string
	Root        *x509.Certificate
	Issuer      *x509.Certificate
	key         crypto.Signer
	now         time.Time
}

// New makes a CA whose certificates are valid from an hour before now.
func New(t testing.TB, trustDomain string, now time.Time) *CA {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	ca := &CA{TrustDomain: trustDomain, key: key, now: now}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		}
	}
	root := template("test root")
	ca.Root = create(t, root, root, rootKey.Public(), rootKey)
	ca.Issuer = create(t, template("test issuer"), ca.Root, key.Public(), rootKey)
	return ca
}

// Pool returns the root for ratls.VerifyPeer.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Root)
	return pool
}

// Claims returns claims that facts, usually policytest.Peer's, stand for.
func Claims(facts policy.Peer) ratls.Claims {
	c := ratls.Claims{
		Role: facts.Role, SubstrateFacts: facts.SubstrateFacts,
		Workload: facts.Workload, WorkloadDigest: facts.WorkloadDigest,
		ManifestVersion: facts.ManifestVersion, ManifestDigest: facts.ManifestDigest, EvidenceHash: [32]byte{1},
	}
	if facts.Role == policy.RoleWorkload {
		c.Namespace, c.Pod, c.PodUID = "default", facts.Workload+"-0", "00000000-0000-4000-8000-000000000001"
	}
	return c
}

// Issue makes a leaf, valid for an hour, and its key. Edits change the
// certificate before it is signed, to make bad ones.
func (c *CA) Issue(t testing.TB, claims ratls.Claims, addrs []netip.Addr, edits ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	id, err := ratls.NewID(c.TrustDomain, &claims)
	if err != nil {
		t.Fatal(err)
	}
	template, err := ratls.Template(claims.Role, id, claims, addrs, c.now.Add(-time.Minute), c.now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial(t)
	for _, edit := range edits {
		edit(template)
	}
	key := newKey(t)
	leaf := create(t, template, c.Issuer, key.Public(), c.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, c.Issuer.Raw}, PrivateKey: key, Leaf: leaf}
}

// Chain returns the leaf and the issuer, as a peer would send them.
func (c *CA) Chain(leaf tls.Certificate) []*x509.Certificate {
	return []*x509.Certificate{leaf.Leaf, c.Issuer}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func create(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
