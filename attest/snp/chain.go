// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// SimulatedMark is an organisation in the subject of every certificate of a
// simulated chip. No vendor uses it.
const SimulatedMark = "SIMULATED"

const rsaBits = 4096

// Chain is a VCEK and its issuers. Whether the ARK is to be trusted is the
// caller's question: the package knows no roots.
type Chain struct {
	VCEK, ASK, ARK *x509.Certificate
	Endorsement    Endorsement // what the VCEK says, valid after Verify only
}

// ParseChain reads the certificates of evidence: VCEK, ASK, ARK. It checks no
// signatures.
func ParseChain(certs [][]byte) (*Chain, error) {
	const want = 3
	if len(certs) != want {
		return nil, fail(CodeCertificates, "3 certificates (VCEK, ASK, ARK)", fmt.Sprint(len(certs)), "have the host put all of them into its certificate table")
	}
	var parsed [want]*x509.Certificate
	for i, der := range certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fail(CodeCertificate, "an X.509 certificate", err.Error(), "")
		}
		parsed[i] = c
	}
	c := &Chain{VCEK: parsed[0], ASK: parsed[1], ARK: parsed[2]}
	e, err := parseEndorsement(c.VCEK)
	if err != nil {
		return nil, err
	}
	c.Endorsement = *e
	return c, nil
}

// Verify checks signatures, names and what each certificate may be used for,
// but no dates: those are CheckDates's, so that an expired chain and a forged
// one are told apart.
func (c *Chain) Verify() error {
	for _, link := range []struct {
		name          string
		child, parent *x509.Certificate
	}{
		{"ARK", c.ARK, c.ARK}, {"ASK", c.ASK, c.ARK}, {"VCEK", c.VCEK, c.ASK},
	} {
		if err := verifyLink(link.name, link.child, link.parent); err != nil {
			return err
		}
	}
	if c.VCEK.IsCA || c.VCEK.KeyUsage&x509.KeyUsageCertSign != 0 {
		return chainError("VCEK", "an end certificate", "one that may issue certificates")
	}
	_, err := vcekPublic(c.VCEK.PublicKey)
	return err
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
	}
	key, ok := parent.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() != rsaBits {
		return chainError(name, "an issuer with a 4096-bit RSA key", fmt.Sprintf("%T", parent.PublicKey))
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return chainError(name, "a signature by "+parent.Subject.CommonName, err.Error())
	}
	return nil
}

func chainError(name, expected, actual string) error {
	return fail(CodeChain, "on the "+name+": "+expected, actual, "fetch the chip's certificates from AMD's key server again")
}

// CheckDates checks that all certificates are valid at now.
func (c *Chain) CheckDates(now time.Time) error {
	for _, cert := range []*x509.Certificate{c.VCEK, c.ASK, c.ARK} {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return fail(CodeChainExpired, fmt.Sprintf("a time from %s to %s (%s)", stamp(cert.NotBefore), stamp(cert.NotAfter), cert.Subject.CommonName),
				stamp(now), "check this machine's clock, then fetch the chip's certificates again")
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Simulated reports whether any certificate carries the mark of a simulator.
func (c *Chain) Simulated() bool {
	for _, cert := range []*x509.Certificate{c.VCEK, c.ASK, c.ARK} {
		if slices.Contains(cert.Subject.Organization, SimulatedMark) || slices.Contains(cert.Issuer.Organization, SimulatedMark) {
			return true
		}
	}
	return false
}
