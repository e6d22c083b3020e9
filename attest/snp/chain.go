// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// SimulatedMark is an organisation in the subject of every certificate of a
// simulated chip. No vendor uses it.
const SimulatedMark = "SIMULATED"

const rsaBits = 4096

// Chain is the certificate of the key that signs reports and its issuers.
// Whether the root is to be trusted is the caller's question: AMD's roots are
// trusted no more than any other, the digest of Root tells which it is.
type Chain struct {
	Leaf         *x509.Certificate // VCEK or VLEK
	Intermediate *x509.Certificate // ASK or ASVK
	Root         *x509.Certificate // ARK
	Endorsement  Endorsement       // what the leaf says, valid after Verify only
}

const chainLength = 3

// ParseChain reads the certificates of evidence: VCEK, ASK, ARK, or VLEK, ASVK,
// ARK. It checks no signatures.
func ParseChain(certs [][]byte) (*Chain, error) {
	if err := capCertificates(certs); err != nil {
		return nil, err
	}
	var parsed [chainLength]*x509.Certificate
	for i, der := range certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, attest.NewFailure(CodeCertificate, "an X.509 certificate", err.Error(), "")
		}
		parsed[i] = c
	}
	c := &Chain{Leaf: parsed[0], Intermediate: parsed[1], Root: parsed[2]}
	e, err := parseEndorsement(c.Leaf)
	if err != nil {
		return nil, err
	}
	c.Endorsement = *e
	return c, nil
}

func capCertificates(certs [][]byte) error {
	if len(certs) != chainLength {
		return attest.NewFailure(CodeCertificates, "3 certificates (VCEK, ASK, ARK or VLEK, ASVK, ARK)", fmt.Sprint(len(certs)), "have the host put all of them into its certificate table")
	}
	for _, der := range certs {
		if len(der) > attest.MaxCert {
			return attest.NewFailure(CodeCertificate, fmt.Sprintf("certificates of at most %d bytes", attest.MaxCert), fmt.Sprintf("%d bytes", len(der)), "")
		}
	}
	return nil
}

// Verify checks signatures, names and what each certificate may be used for,
// but no dates: those are CheckDates's, so that an expired chain and a forged
// one are told apart.
func (c *Chain) Verify() error {
	if err := c.checkNames(); err != nil {
		return err
	}
	if c.Leaf.IsCA || c.Leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		return chainError(c.Endorsement.Signer.String(), "an end certificate", "one that may issue certificates")
	}
	if _, err := leafPublic(c.Leaf.PublicKey); err != nil {
		return err
	}
	for _, link := range []struct {
		name          string
		child, parent *x509.Certificate
	}{
		{"ARK", c.Root, c.Root},
		{c.Endorsement.Signer.issuer(), c.Intermediate, c.Root},
		{c.Endorsement.Signer.String(), c.Leaf, c.Intermediate},
	} {
		if err := verifyLink(link.name, link.child, link.parent); err != nil {
			return err
		}
	}
	return nil
}

// checkNames holds the certificates to the names AMD gives them, so that an ASK
// endorses VCEKs and an ASVK VLEKs, both of its own product. A simulator puts
// its mark before the names.
func (c *Chain) checkNames() error {
	p := string(c.Endorsement.Product)
	intermediate := "SEV-" + p
	if c.Endorsement.Signer == KeyVLEK {
		intermediate = "SEV-VLEK-" + p
	}
	for _, want := range []struct {
		name string
		cert *x509.Certificate
	}{
		{"ARK-" + p, c.Root}, {intermediate, c.Intermediate}, {"SEV-" + c.Endorsement.Signer.String(), c.Leaf},
	} {
		got := want.cert.Subject.CommonName
		if c.Simulated() {
			got = strings.TrimPrefix(got, SimulatedMark+" ")
		}
		if got != want.name {
			return chainError(c.Endorsement.Signer.String(), "a chain with "+want.name, fmt.Sprintf("%.64q", got))
		}
	}
	return nil
}

func verifyLink(name string, child, parent *x509.Certificate) error {
	switch {
	case !bytes.Equal(child.RawIssuer, parent.RawSubject):
		return chainError(name, "issuer "+parent.Subject.String(), child.Issuer.String())
	case !parent.BasicConstraintsValid || !parent.IsCA || parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return chainError(name, "an issuer that may sign certificates", parent.Subject.String())
	case child.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return chainError(name, x509.SHA384WithRSAPSS.String(), child.SignatureAlgorithm.String())
	case len(child.UnhandledCriticalExtensions) != 0:
		return chainError(name, "no unknown critical extensions", fmt.Sprint(child.UnhandledCriticalExtensions))
	case !rsa4096(parent):
		return chainError(name, "an issuer with a 4096-bit RSA key", fmt.Sprintf("%T", parent.PublicKey))
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return chainError(name, "a signature by "+parent.Subject.CommonName, err.Error())
	}
	return nil
}

func rsa4096(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	return ok && key.N.BitLen() == rsaBits
}

func (c *Chain) certificates() [chainLength]*x509.Certificate {
	return [chainLength]*x509.Certificate{c.Leaf, c.Intermediate, c.Root}
}

func chainError(name, expected, actual string) error {
	return attest.NewFailure(CodeChain, "on the "+name+": "+expected, actual, "fetch the chip's certificates from AMD's key server again")
}

// CheckDates checks that all certificates are valid at now.
func (c *Chain) CheckDates(now time.Time) error {
	for _, cert := range c.certificates() {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return attest.NewFailure(CodeChainExpired, fmt.Sprintf("a time from %s to %s (%s)", stamp(cert.NotBefore), stamp(cert.NotAfter), cert.Subject.CommonName),
				stamp(now), "check this machine's clock, then fetch the chip's certificates again")
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Simulated reports whether any certificate carries the mark of a simulator.
func (c *Chain) Simulated() bool {
	for _, cert := range c.certificates() {
		if slices.Contains(cert.Subject.Organization, SimulatedMark) || slices.Contains(cert.Issuer.Organization, SimulatedMark) {
			return true
		}
	}
	return false
}
