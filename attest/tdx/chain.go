// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// SimulatedMark is an organisation in the subject of every certificate of a
// simulated platform. Intel does not use it.
const SimulatedMark = "SIMULATED"

// The names Intel gives its certificates (PCK Certificate and CRL Profile,
// sections 1.3 and 2.3).
const (
	NameRoot        = "Intel SGX Root CA"
	NamePlatformCA  = "Intel SGX PCK Platform CA"
	NameProcessorCA = "Intel SGX PCK Processor CA"
	NamePCK         = "Intel SGX PCK Certificate"
	NameTCBSigner   = "Intel SGX TCB Signing"
)

const (
	chainLength = 3
	pemBegin    = "-----BEGIN "
	pemType     = "CERTIFICATE"
)

// Chain is the PCK certificate and its issuers. Whether the root is to be
// trusted is the caller's question: its digest tells which it is.
type Chain struct {
	Leaf         *x509.Certificate // PCK
	Intermediate *x509.Certificate // PCK Platform CA or PCK Processor CA
	Root         *x509.Certificate
	Endorsement  Endorsement // what the leaf says, valid after Verify only
}

// PEM returns the certificate chain the quote carries, as received. Callers
// must not change it.
func (q *Quote) PEM() []byte { return q.chain }

// Chain parses the certificate chain the quote carries. It checks no signatures.
func (q *Quote) Chain() (*Chain, error) { return ParseChain(q.chain) }

// ParseChain reads a PCK certificate chain: PCK, PCK CA and root in PEM and
// nothing else but one NUL at the end, which Intel's quoting enclave counts as
// part of the text. It checks no signatures.
func ParseChain(text []byte) (*Chain, error) {
	ders, err := decodePEM(text)
	if err != nil {
		return nil, err
	}
	c := &Chain{}
	for i, to := range []**x509.Certificate{&c.Leaf, &c.Intermediate, &c.Root} {
		if *to, err = x509.ParseCertificate(ders[i]); err != nil {
			return nil, attest.NewFailure(CodeCertificate, "an X.509 certificate", err.Error(), "")
		}
	}
	e, err := parseEndorsement(c.Leaf)
	if err != nil {
		return nil, err
	}
	c.Endorsement = *e
	return c, nil
}

func decodePEM(text []byte) ([][]byte, error) {
	if len(text) > chainLength*attest.MaxCert {
		return nil, attest.NewFailure(CodeCertificate, fmt.Sprintf("a chain of at most %d bytes", chainLength*attest.MaxCert), fmt.Sprintf("%d bytes", len(text)), "")
	}
	rest := bytes.TrimSuffix(text, []byte{0})
	if n := bytes.Count(rest, []byte(pemBegin)); n != chainLength {
		return nil, attest.NewFailure(CodeCertificates, "3 certificates in PEM (PCK, PCK CA, root)", fmt.Sprint(n), "have the platform's quoting service put the PCK certificate chain into its quotes")
	}
	var ders [][]byte
	for range chainLength {
		if !bytes.HasPrefix(rest, []byte(pemBegin)) {
			return nil, attest.NewFailure(CodeCertificate, "PEM without other text", fmt.Sprintf("%.32q", rest), "")
		}
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != pemType || len(block.Headers) != 0 || len(block.Bytes) > attest.MaxCert {
			return nil, attest.NewFailure(CodeCertificate, fmt.Sprintf("PEM certificates of at most %d bytes", attest.MaxCert), "something else", "")
		}
		ders = append(ders, block.Bytes)
	}
	if len(rest) != 0 {
		return nil, attest.NewFailure(CodeCertificate, "a PEM chain that ends with the root", fmt.Sprintf("%d bytes more", len(rest)), "")
	}
	return ders, nil
}

// Verify checks signatures, names and what each certificate may be used for,
// but no dates: those are CheckDates's, so that an expired chain and a forged
// one are told apart.
func (c *Chain) Verify() error {
	ca := NameProcessorCA
	if c.Endorsement.Platform != nil {
		ca = NamePlatformCA // only its certificates say what a platform is made of
	}
	for _, link := range []struct {
		name          string
		child, parent *x509.Certificate
	}{
		{NameRoot, c.Root, c.Root}, {ca, c.Intermediate, c.Root}, {NamePCK, c.Leaf, c.Intermediate},
	} {
		if err := verifyLink(CodeChain, link.name, link.child, link.parent); err != nil {
			return err
		}
	}
	if c.Root.MaxPathLenZero && c.Root.MaxPathLen == 0 {
		return attest.NewFailure(CodeChain, "a root that allows an intermediate", "path length 0", "")
	}
	return checkSigner(CodeChain, c.Leaf)
}

// checkSigner checks a certificate whose key signs things, not certificates.
func checkSigner(code string, c *x509.Certificate) error {
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 || c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return attest.NewFailure(code, "an end certificate for signatures", commonName(c)+" with other uses", "")
	}
	_, err := publicKey(code, c)
	return err
}

// verifyLink checks that parent issued child, and that child is what its name says.
func verifyLink(code, name string, child, parent *x509.Certificate) error {
	refuse := func(expected, actual string) error {
		return attest.NewFailure(code, "on "+name+": "+expected, actual, "")
	}
	switch {
	case commonName(child) != name:
		return refuse("its name", fmt.Sprintf("%.64q", commonName(child)))
	case !bytes.Equal(child.RawIssuer, parent.RawSubject):
		return refuse("issuer "+parent.Subject.String(), child.Issuer.String())
	case !parent.BasicConstraintsValid || !parent.IsCA || parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse("an issuer that may sign certificates", parent.Subject.String())
	case child.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return refuse(x509.ECDSAWithSHA256.String(), child.SignatureAlgorithm.String())
	case len(child.UnhandledCriticalExtensions) != 0:
		return refuse("no unknown critical extensions", fmt.Sprint(child.UnhandledCriticalExtensions))
	}
	if _, err := publicKey(code, parent); err != nil {
		return err
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		return refuse("a signature by "+commonName(parent), err.Error())
	}
	return nil
}

func publicKey(code string, c *x509.Certificate) (*ecdsa.PublicKey, error) {
	public, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, attest.NewFailure(code, "a key on P-256", fmt.Sprintf("a key of type %T in %s", c.PublicKey, commonName(c)), "")
	}
	return public, nil
}

// commonName is the name Intel would use: a simulator puts its mark before it.
func commonName(c *x509.Certificate) string {
	if simulated(c) {
		return strings.TrimPrefix(c.Subject.CommonName, SimulatedMark+" ")
	}
	return c.Subject.CommonName
}

func (c *Chain) certificates() [chainLength]*x509.Certificate {
	return [chainLength]*x509.Certificate{c.Leaf, c.Intermediate, c.Root}
}

// CheckDates checks that all certificates are valid at now.
func (c *Chain) CheckDates(now time.Time) error {
	for _, cert := range c.certificates() {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return attest.NewFailure(CodeChainExpired, fmt.Sprintf("a time from %s to %s (%s)", stamp(cert.NotBefore), stamp(cert.NotAfter), commonName(cert)),
				stamp(now), "check this machine's clock, then have the platform fetch its PCK certificate again")
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Simulated reports whether any certificate carries the mark of a simulator.
func (c *Chain) Simulated() bool {
	certs := c.certificates()
	return slices.ContainsFunc(certs[:], simulated)
}

func simulated(c *x509.Certificate) bool {
	return slices.Contains(c.Subject.Organization, SimulatedMark) || slices.Contains(c.Issuer.Organization, SimulatedMark)
}
