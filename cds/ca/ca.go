// SPDX-License-Identifier: Apache-2.0

// Package ca is the mesh's certificate authority: it lives in memory, signs
// for one trust domain only, and never for longer than an hour.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

const (
	// MaxLife is the longest life of a leaf.
	MaxLife = time.Hour
	// rootLife outlives every process that holds a root in memory.
	rootLife = 10 * 365 * 24 * time.Hour
	// skew is how far back a certificate's life begins, for clocks that are
	// behind the CDS's.
	skew = time.Minute
)

// CA signs leaves.
type CA struct {
	root *x509.Certificate
	key  crypto.Signer
	life time.Duration
	now  func() time.Time
}

// New makes a CA with a fresh key for the trust domain. Its leaves live for
// life, which is at most MaxLife; zero means MaxLife.
func New(trustDomain string, life time.Duration, now func() time.Time) (*CA, error) {
	if life < 0 || life > MaxLife {
		return nil, fmt.Errorf("making the mesh CA: a certificate life of %s, must be at most %s", life, MaxLife)
	}
	if life == 0 {
		life = MaxLife
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the mesh CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "c8s mesh CA", Organization: []string{trustDomain}},
		NotBefore:             now().Add(-skew),
		NotAfter:              now().Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// SPIFFE X.509-SVID section 4.2: the authority is confined to its domain.
		PermittedURIDomains:         []string{trustDomain},
		PermittedDNSDomainsCritical: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the mesh CA's certificate: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{root: root, key: key, life: life, now: now}, nil
}

// Root is the certificate every leaf chains to.
func (c *CA) Root() *x509.Certificate { return c.root }

// Validity returns the life of a leaf issued now that may not outlive limit;
// a zero limit does not limit.
func (c *CA) Validity(limit time.Time) (notBefore, notAfter time.Time) {
	now := c.now()
	notAfter = now.Add(min(c.life, MaxLife-skew))
	if !limit.IsZero() && limit.Before(notAfter) {
		notAfter = limit
	}
	return now.Add(-skew), notAfter
}

// Issue signs a leaf. The template comes from ratls.Template, which keeps
// what verifiers check next to what issuers write.
func (c *CA) Issue(tmpl *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	if life := tmpl.NotAfter.Sub(tmpl.NotBefore); life <= 0 || life > MaxLife {
		return nil, fmt.Errorf("issuing a certificate: its life would be %s, must be between 0 and %s", life, MaxLife)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.root, public, c.key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newSerial returns 127 random bits: positive, and within the 20 octets of
// RFC 5280 section 4.1.2.2.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
