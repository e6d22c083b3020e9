// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/internal/lru"
)

// SimulatedMark is an organisation in the subject of every certificate of a
// simulated platform. No vendor uses it.
const SimulatedMark = "SIMULATED"

const chainLength = 3

// Chain is a PCK certificate and its issuers. Whether the root is to be trusted
// is the caller's question: the package knows no roots.
type Chain struct {
	Leaf, CA, Root *x509.Certificate
	PCK            PCK
}

// ParseChain reads the certificates a quote carries: PCK, PCK CA, root, as
// PEM, with the NUL that Intel's library appends. It checks no signatures.
func ParseChain(text []byte) (*Chain, error) {
	certs, err := pemCertificates(text)
	if err != nil {
		return nil, err
	}
	if len(certs) != chainLength {
		return nil, chainFormat("3 certificates (PCK, PCK CA, root)", fmt.Sprint(len(certs)))
	}
	c := &Chain{Leaf: certs[0], CA: certs[1], Root: certs[2]}
	pck, err := parsePCK(c.Leaf)
	if err != nil {
		return nil, err
	}
	c.PCK = *pck
	return c, nil
}

func chainFormat(expected, actual string) error {
	return attest.NewFailure(CodeCertificates, expected, actual, "")
}

// pemCertificates reads certificates and refuses everything that stands
// between, before or after them but white space and a last NUL.
func pemCertificates(text []byte) ([]*x509.Certificate, error) {
	rest := bytes.TrimSuffix(text, []byte{0})
	var certs []*x509.Certificate
	for rest = bytes.TrimSpace(rest); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if len(certs) == attest.MaxCerts || !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, chainFormat(fmt.Sprintf("up to %d certificates in PEM, and nothing else", attest.MaxCerts), "something else")
		}
		block, after := pem.Decode(rest)
		if block == nil || len(block.Headers) != 0 || len(block.Bytes) > attest.MaxCert {
			return nil, chainFormat("certificates in PEM", "a damaged block")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, chainFormat("an X.509 certificate", err.Error())
		}
		certs, rest = append(certs, c), after
	}
	return certs, nil
}

// Verify checks signatures, names and what each certificate may be used for,
// but no dates: those are CheckDates's, so that an expired chain and a forged
// one are told apart.
func (c *Chain) Verify() error {
	for _, link := range []struct {
		name          string
		child, parent *x509.Certificate
	}{
		{"root", c.Root, c.Root}, {"PCK CA", c.CA, c.Root}, {"PCK certificate", c.Leaf, c.CA},
	} {
		if err := verifyLink(link.name, link.child, link.parent); err != nil {
			return err
		}
	}
	return checkEnd("PCK certificate", c.Leaf)
}

func verifyLink(name string, child, parent *x509.Certificate) error {
	switch {
	case !bytes.Equal(child.RawIssuer, parent.RawSubject):
		return chainError(name, "issuer "+parent.Subject.String(), child.Issuer.String())
	case !parent.BasicConstraintsValid || !parent.IsCA || parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return chainError(name, "an issuer that may sign certificates", parent.Subject.String())
	case child.IsCA && child != parent && parent.MaxPathLenZero:
		return chainError(name, "an end certificate below "+parent.Subject.CommonName, "one that may issue certificates")
	case child.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return chainError(name, x509.ECDSAWithSHA256.String(), child.SignatureAlgorithm.String())
	case len(child.UnhandledCriticalExtensions) != 0:
		return chainError(name, "no unknown critical extensions", fmt.Sprint(child.UnhandledCriticalExtensions))
	}
	if _, err := p256(parent); err != nil {
		return err
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return chainError(name, "a signature by "+parent.Subject.CommonName, err.Error())
	}
	return nil
}

// checkEnd checks that a certificate signs data and issues nothing.
func checkEnd(name string, c *x509.Certificate) error {
	if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return chainError(name, "an end certificate for digital signatures", "one for something else")
	}
	_, err := p256(c)
	return err
}

func p256(c *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, chainError(c.Subject.CommonName, "a key on P-256", fmt.Sprintf("%T", c.PublicKey))
	}
	return key, nil
}

func chainError(name, expected, actual string) error {
	return attest.NewFailure(CodeChain, "on the "+name+": "+expected, actual, "have the platform registered again, and ask for a new quote")
}

// CheckDates checks that all certificates are valid at now.
func (c *Chain) CheckDates(now time.Time) error {
	for _, cert := range []*x509.Certificate{c.Leaf, c.CA, c.Root} {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return attest.NewFailure(CodeChainExpired, fmt.Sprintf("a time from %s to %s (%s)", stamp(cert.NotBefore), stamp(cert.NotAfter), cert.Subject.CommonName),
				stamp(now), "check this machine's clock, then ask for a new quote")
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Simulated reports whether any certificate carries the mark of a simulator.
func (c *Chain) Simulated() bool {
	for _, cert := range []*x509.Certificate{c.Leaf, c.CA, c.Root} {
		if slices.Contains(cert.Subject.Organization, SimulatedMark) || slices.Contains(cert.Issuer.Organization, SimulatedMark) {
			return true
		}
	}
	return false
}

// Cache remembers chains and signed collateral whose signatures were verified,
// by the SHA-256 of their bytes. Dates and revocation are never remembered. It
// is safe for concurrent use.
type Cache struct {
	chains     *lru.Cache[*Chain]
	collateral *lru.Cache[*verifiedCollateral]
}

// kinds is how many pieces of collateral one machine needs.
const kinds = 4

// NewCache returns a cache for about as many machines.
func NewCache(machines int) *Cache {
	return &Cache{chains: lru.New[*Chain](max(1, machines)), collateral: lru.New[*verifiedCollateral](kinds * (1 + max(1, machines)))}
}

// Chain reads a chain as ParseChain does and verifies its signatures. The chain
// is shared: do not write to it.
func (c *Cache) Chain(text []byte) (*Chain, error) {
	key := lru.Key(sha256.Sum256(text))
	if chain, ok := c.chains.Get(key); ok {
		return chain, nil
	}
	chain, err := ParseChain(text)
	if err != nil {
		return nil, err
	}
	if err := chain.Verify(); err != nil {
		return nil, err
	}
	c.chains.Put(key, chain)
	return chain, nil
}
