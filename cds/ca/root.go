// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Root is a trust domain's root: it signs the intermediates of the replicas,
// which all hold its key, and nothing else.
type Root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewRoot makes the certificate of a new trust domain's root. It is made once
// and kept: another certificate of the same key would be another CA to all who
// know the first by its bytes.
func NewRoot(trustDomain string, key crypto.Signer, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := authority(trustDomain, "c8s mesh CA", now, now.Add(rootLife))
	tmpl.SerialNumber, tmpl.MaxPathLen = serial, 1
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the mesh CA's root: %w", err)
	}
	if _, err := ParseRoot(der, trustDomain); err != nil {
		return nil, err
	}
	return der, nil
}

// authority is what a root and an intermediate have in common.
func authority(trustDomain, name string, now, notAfter time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{trustDomain}},
		NotBefore: now.Add(-skew), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// SPIFFE X.509-SVID section 4.2: the authority is confined to its domain.
		PermittedURIDomains: []string{trustDomain}, PermittedDNSDomainsCritical: true,
	}
}

// ParseRoot reads the certificate of a trust domain's root. It refuses all that
// NewRoot does not make, but does not look at the dates.
func ParseRoot(der []byte, trustDomain string) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the mesh CA's root: %w", err)
	}
	if err := checkRoot(cert, trustDomain); err != nil {
		return nil, fmt.Errorf("reading the mesh CA's root: %w", err)
	}
	return cert, nil
}

func checkRoot(cert *x509.Certificate, trustDomain string) error {
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || public.Curve != elliptic.P256():
		return errors.New("its key is not ECDSA on P-256")
	case !cert.IsCA || cert.MaxPathLen != 1 || cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign:
		return errors.New("it is not a CA of path length 1 that signs certificates and revocation lists alone")
	case !cert.PermittedDNSDomainsCritical || !slices.Equal(cert.PermittedURIDomains, []string{trustDomain}):
		return fmt.Errorf("it may name %q, expected %q alone", cert.PermittedURIDomains, trustDomain)
	case len(cert.UnhandledCriticalExtensions) != 0:
		return errors.New("it has critical extensions of others")
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return fmt.Errorf("it is not signed by its own key: %w", err)
	}
	return nil
}

// OpenRoot joins the root's certificate and its key.
func OpenRoot(der []byte, key crypto.Signer) (*Root, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("opening the mesh CA's root: %w", err)
	}
	if len(cert.PermittedURIDomains) != 1 {
		return nil, fmt.Errorf("opening the mesh CA's root: it may name %d trust domains, expected one", len(cert.PermittedURIDomains))
	}
	if err := checkRoot(cert, cert.PermittedURIDomains[0]); err != nil {
		return nil, fmt.Errorf("opening the mesh CA's root: %w", err)
	}
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("opening the mesh CA's root: the key is not the certificate's: the seed is another trust domain's or another CA's")
	}
	return &Root{cert: cert, key: key}, nil
}

// Certificate is what every chain ends in. It is shared: do not write to it.
func (r *Root) Certificate() *x509.Certificate { return r.cert }

// TrustDomain is the one that the root may sign for.
func (r *Root) TrustDomain() string { return r.cert.PermittedURIDomains[0] }
