// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/internal/lru"
)

// tcbSigner is part of the name of the certificate that signs TCB info and QE
// identity (Intel PCK Certificate and CRL Profile).
const tcbSigner = "SGX TCB Signing"

// verifiedCollateral is one piece whose signature was verified under the root
// of the chain it was needed for.
type verifiedCollateral struct {
	info           *tcbInfo
	qe             *qeIdentity
	crl            *x509.RevocationList
	signer         *x509.Certificate // of info and qe
	issued, update time.Time
}

// Evaluate judges a quote by Intel's collateral: signatures, dates, revocation,
// and the TCB levels of platform, TDX module and quoting enclave. Of several
// pieces of one kind the newest good one is used, so that an old one beside it
// hides nothing. The chain must have been verified.
func (c *Cache) Evaluate(q *Quote, chain *Chain, items []attest.Collateral, now time.Time) (*Evaluation, error) {
	s := &selection{cache: c, chain: chain, items: items, now: now}
	info := s.newest(attest.IntelTCBInfo, func(v *verifiedCollateral) bool { return v.info.covers(&chain.PCK) })
	qe := s.newest(attest.IntelQEIdentity, func(*verifiedCollateral) bool { return true })
	pckCRL := s.newest(attest.IntelPCKCRL, func(*verifiedCollateral) bool { return true })
	rootCRL := s.newest(attest.IntelRootCRL, func(*verifiedCollateral) bool { return true })
	if s.err != nil {
		return nil, s.err
	}
	for _, r := range []struct {
		crl  *x509.RevocationList
		cert *x509.Certificate
	}{
		{pckCRL.crl, chain.Leaf}, {rootCRL.crl, chain.CA}, {rootCRL.crl, chain.Root},
	} {
		if revokes(r.crl, r.cert.SerialNumber) {
			return nil, attest.NewFailure(CodeRevoked, "certificates that are not revoked", r.cert.Subject.CommonName+" is, serial "+r.cert.SerialNumber.Text(16), "do not use this platform")
		}
	}
	for _, v := range []*verifiedCollateral{info, qe} {
		if revokes(rootCRL.crl, v.signer.SerialNumber) {
			return nil, attest.NewFailure(CodeCollateralSignature, "a signer of "+v.what()+" that is not revoked", "serial "+v.signer.SerialNumber.Text(16), "fetch newer collateral")
		}
	}
	e := &Evaluation{}
	for _, v := range []*verifiedCollateral{info, qe, pckCRL, rootCRL} {
		if err := v.checkDates(now); err != nil {
			return nil, err
		}
	}
	e.NextUpdate = earliest(info.update, qe.update, pckCRL.update, rootCRL.update)
	e.Issued = earliest(info.issued, qe.issued, pckCRL.issued) // the root's list comes once a year
	if err := e.evaluate(q, &chain.PCK, info.info, qe.qe); err != nil {
		return nil, err
	}
	return e, nil
}

func revokes(crl *x509.RevocationList, serial *big.Int) bool {
	for i := range crl.RevokedCertificateEntries {
		if crl.RevokedCertificateEntries[i].SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

// selection picks pieces and keeps the first error.
type selection struct {
	cache *Cache
	chain *Chain
	items []attest.Collateral
	now   time.Time
	err   error
}

func (s *selection) newest(kind attest.CollateralKind, fits func(*verifiedCollateral) bool) *verifiedCollateral {
	var best *verifiedCollateral
	why := attest.NewFailure(CodeCollateralMissing, describeKind(kind, &s.chain.PCK), "none", "fetch it with c8s collateral fetch, and give it beside the evidence")
	for i := range s.items {
		if s.items[i].Kind != kind {
			continue
		}
		v, err := s.cache.verified(&s.items[i], s.chain)
		switch {
		case err != nil:
			why = err
		case fits(v) && (best == nil || s.newer(v, best)):
			best = v
		}
	}
	if best == nil && s.err == nil {
		s.err = why
	}
	return best
}

// newer prefers what is issued later, but what is issued at all to what claims
// to be of the future.
func (s *selection) newer(v, best *verifiedCollateral) bool {
	if future, was := v.issued.After(s.now), best.issued.After(s.now); future != was {
		return was
	}
	return v.issued.After(best.issued)
}

func describeKind(kind attest.CollateralKind, pck *PCK) string {
	if kind == attest.IntelTCBInfo {
		return fmt.Sprintf("%s for FMSPC %x", kind, pck.FMSPC)
	}
	return string(kind)
}

func (v *verifiedCollateral) checkDates(now time.Time) error {
	for _, span := range []struct {
		what     string
		from, to time.Time
	}{
		{v.what(), v.issued, v.update},
		{v.what() + "'s signer", v.notBefore(), v.notAfter()},
	} {
		if now.Before(span.from) || now.After(span.to) {
			return attest.NewFailure(CodeCollateralExpired, fmt.Sprintf("%s for a time from %s to %s", span.what, stamp(span.from), stamp(span.to)), stamp(now), "fetch newer collateral")
		}
	}
	return nil
}

func (v *verifiedCollateral) what() string {
	switch {
	case v.info != nil:
		return "TCB info"
	case v.qe != nil:
		return "QE identity"
	}
	return "revocation list of " + v.crl.Issuer.CommonName
}

func (v *verifiedCollateral) notBefore() time.Time {
	if v.signer == nil {
		return v.issued
	}
	return v.signer.NotBefore
}

func (v *verifiedCollateral) notAfter() time.Time {
	if v.signer == nil {
		return v.update
	}
	return v.signer.NotAfter
}

// verified reads a piece and verifies its signature under the chain's root.
func (c *Cache) verified(item *attest.Collateral, chain *Chain) (*verifiedCollateral, error) {
	if len(item.Body) > attest.MaxCollateralBody || len(item.Certs) > attest.MaxCerts {
		return nil, collateralFormat(item.Kind, fmt.Sprintf("at most %d bytes and %d certificates", attest.MaxCollateralBody, attest.MaxCerts), "more")
	}
	key := collateralKey(item, chain)
	if v, ok := c.collateral.Get(key); ok {
		return v, nil
	}
	v, err := read(item, chain)
	if err != nil {
		return nil, err
	}
	c.collateral.Put(key, v)
	return v, nil
}

func collateralKey(item *attest.Collateral, chain *Chain) lru.Key {
	h := sha256.New()
	var length [8]byte
	for _, part := range append([][]byte{[]byte(item.Kind), item.Body, chain.CA.Raw, chain.Root.Raw}, item.Certs...) {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return lru.Key(h.Sum(nil))
}

func collateralFormat(kind attest.CollateralKind, expected, actual string) error {
	return attest.NewFailure(CodeCollateralFormat, fmt.Sprintf("%s: %s", kind, expected), actual, "fetch it again with c8s collateral fetch")
}

func collateralSignature(kind attest.CollateralKind, expected, actual string) error {
	return attest.NewFailure(CodeCollateralSignature, fmt.Sprintf("%s: %s", kind, expected), actual, "fetch it again with c8s collateral fetch")
}

func read(item *attest.Collateral, chain *Chain) (*verifiedCollateral, error) {
	switch item.Kind {
	case attest.IntelPCKCRL:
		return readCRL(item, chain.CA)
	case attest.IntelRootCRL:
		return readCRL(item, chain.Root)
	case attest.IntelTCBInfo:
		info, signed, err := parseTCBInfo(item.Body)
		if err != nil {
			return nil, err
		}
		v := &verifiedCollateral{info: info, issued: info.IssueDate, update: info.NextUpdate}
		v.signer, err = verifyJSON(item, signed, chain.Root)
		return v, err
	case attest.IntelQEIdentity:
		qe, signed, err := parseQEIdentity(item.Body)
		if err != nil {
			return nil, err
		}
		v := &verifiedCollateral{qe: qe, issued: qe.IssueDate, update: qe.NextUpdate}
		v.signer, err = verifyJSON(item, signed, chain.Root)
		return v, err
	}
	return nil, collateralFormat(item.Kind, "collateral of Intel's", "another kind")
}

func readCRL(item *attest.Collateral, issuer *x509.Certificate) (*verifiedCollateral, error) {
	crl, err := x509.ParseRevocationList(item.Body)
	if err != nil {
		return nil, collateralFormat(item.Kind, "a revocation list in DER", err.Error())
	}
	switch {
	case !bytes.Equal(crl.RawIssuer, issuer.RawSubject):
		return nil, collateralSignature(item.Kind, "issuer "+issuer.Subject.String(), crl.Issuer.String())
	case crl.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return nil, collateralSignature(item.Kind, x509.ECDSAWithSHA256.String(), crl.SignatureAlgorithm.String())
	case !crl.ThisUpdate.Before(crl.NextUpdate):
		return nil, collateralFormat(item.Kind, "a next update after this update", stamp(crl.NextUpdate))
	}
	for _, e := range crl.Extensions {
		if e.Critical { // a part, a difference, or about other issuers (RFC 5280 section 5.2)
			return nil, collateralFormat(item.Kind, "a complete list, without critical extensions", e.Id.String())
		}
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return nil, collateralSignature(item.Kind, "a signature by "+issuer.Subject.CommonName, err.Error())
	}
	return &verifiedCollateral{crl: crl, issued: crl.ThisUpdate, update: crl.NextUpdate}, nil
}

// verifyJSON checks the signature over the signed part's received bytes, by a
// TCB signing certificate below the very root of the quote's chain.
func verifyJSON(item *attest.Collateral, part *signedPart, root *x509.Certificate) (*x509.Certificate, error) {
	if len(item.Certs) == 0 || len(item.Certs) > 1 && !bytes.Equal(item.Certs[len(item.Certs)-1], root.Raw) {
		return nil, collateralSignature(item.Kind, "the signer's certificate, and the quote's root after it", fmt.Sprintf("%d certificates with another root", len(item.Certs)))
	}
	signer, err := x509.ParseCertificate(item.Certs[0])
	if err != nil {
		return nil, collateralFormat(item.Kind, "an X.509 certificate", err.Error())
	}
	if !strings.Contains(signer.Subject.CommonName, tcbSigner) {
		return nil, collateralSignature(item.Kind, "a signer named "+tcbSigner, signer.Subject.CommonName)
	}
	if err := verifyLink("TCB signer", signer, root); err != nil {
		return nil, collateralSignature(item.Kind, "a signer below the quote's root", err.Error())
	}
	if err := checkEnd("TCB signer", signer); err != nil {
		return nil, collateralSignature(item.Kind, "a signer that issues nothing", err.Error())
	}
	key, err := p256(signer)
	if err != nil {
		return nil, err
	}
	if !verify(key, part.bytes, part.signature) {
		return nil, collateralSignature(item.Kind, "a signature by "+signer.Subject.CommonName, "one that does not verify: "+hex.EncodeToString(part.signature))
	}
	return signer, nil
}
