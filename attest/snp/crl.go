// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// CRL is a revocation list of an ARK. Its signature and dates have not been
// checked: that is Chain.CheckRevocation's.
type CRL struct {
	ThisUpdate, NextUpdate time.Time // so that a caller can ask for a younger list than NextUpdate does

	list     *x509.RevocationList
	verified *x509.Certificate // the ARK whose signature was found good, or nil
}

// ParseCRL reads a revocation list. It must say until when it is complete
// (nextUpdate), and be of the simple kind: parts, differences and lists about
// other issuers say so in critical extensions (RFC 5280, section 5.2), and
// those are refused.
func ParseCRL(der []byte) (*CRL, error) {
	if len(der) > attest.MaxCollateralBody {
		return nil, attest.NewFailure(CodeCRL, fmt.Sprintf("at most %d bytes", attest.MaxCollateralBody), fmt.Sprintf("%d bytes", len(der)), "")
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, attest.NewFailure(CodeCRL, "a certificate revocation list", err.Error(), "fetch it from AMD's key server again")
	}
	if list.NextUpdate.IsZero() || !list.ThisUpdate.Before(list.NextUpdate) {
		return nil, attest.NewFailure(CodeCRL, "nextUpdate, after thisUpdate", stampOrNone(list.NextUpdate), "fetch it from AMD's key server again")
	}
	extensions := list.Extensions
	for _, e := range list.RevokedCertificateEntries {
		extensions = append(extensions, e.Extensions...)
	}
	for _, e := range extensions {
		if e.Critical {
			return nil, criticalExtension(e)
		}
	}
	return &CRL{ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, list: list}, nil
}

func criticalExtension(e pkix.Extension) error {
	return attest.NewFailure(CodeCRL, "no critical extensions", e.Id.String(), "use AMD's complete revocation list")
}

func stampOrNone(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return stamp(t)
}

// CheckRevocation checks that crl is the chain's root's word, that it is of
// now, and that it names none of the chain's certificates, of whichever issuer:
// AMD's list covers all that are below its root. A list that is out of date
// refuses with CodeCRLExpired, which says nothing bad about the chain. Call it
// after Verify.
func (c *Chain) CheckRevocation(crl *CRL, now time.Time) error {
	if crl == nil || crl.list == nil {
		return attest.NewFailure(CodeCRL, "a revocation list", "none", "fetch AMD's revocation list")
	}
	if crl.verified == nil || !crl.verified.Equal(c.Root) {
		if err := c.checkIssued(crl.list); err != nil {
			return err
		}
	}
	// Also an old list is the vendor's word that something is revoked.
	for _, entry := range crl.list.RevokedCertificateEntries {
		for _, cert := range c.certificates() {
			if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return attest.NewFailure(CodeRevoked, "no revoked certificate", fmt.Sprintf("%s (serial %x) revoked at %s", cert.Subject.CommonName, cert.SerialNumber, stamp(entry.RevocationTime)),
					"do not trust this machine until AMD has issued new certificates")
			}
		}
	}
	if now.Before(crl.ThisUpdate) || now.After(crl.NextUpdate) {
		return attest.NewFailure(CodeCRLExpired, fmt.Sprintf("a list for %s", stamp(now)),
			fmt.Sprintf("one from %s to %s", stamp(crl.ThisUpdate), stamp(crl.NextUpdate)), "fetch AMD's revocation list again, and check this machine's clock")
	}
	return nil
}

// checkIssued checks the list's signature.
func (c *Chain) checkIssued(list *x509.RevocationList) error {
	const remedy = "fetch the revocation list of the chain's product from AMD's key server"
	refuse := func(expected, actual string) error {
		return attest.NewFailure(CodeCRLIssuer, expected, actual, remedy)
	}
	switch {
	case !bytes.Equal(list.RawIssuer, c.Root.RawSubject):
		return refuse("a list of "+c.Root.Subject.CommonName, list.Issuer.String())
	case list.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return refuse(x509.SHA384WithRSAPSS.String(), list.SignatureAlgorithm.String())
	case c.Root.KeyUsage&x509.KeyUsageCRLSign == 0 || !rsa4096(c.Root):
		return refuse("a root that may sign lists, with a 4096-bit RSA key", c.Root.Subject.String())
	}
	if err := c.Root.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature); err != nil {
		return refuse("a signature by "+c.Root.Subject.CommonName, err.Error())
	}
	return nil
}
