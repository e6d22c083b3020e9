// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

const maxHeader = 16 << 10 // bytes of an issuer chain, escaped

// Item is one thing as it was published.
type Item struct {
	Request    Request
	Body       []byte    // DER; JSON of Intel's TCB info and QE identity; PEM of AMD's chains
	Certs      [][]byte  // DER: the signer's chain, signer first; of AMD's chains what Body holds
	Fetched    time.Time // by the clock of who fetched it
	NextUpdate time.Time // of Body by its own words, or until its certificates last
}

// Stale reports whether the item says of itself that there is a newer one.
func (i Item) Stale(now time.Time) bool { return !now.Before(i.NextUpdate) }

// Collateral returns the item for stapling; certificates are not stapled.
func (i Item) Collateral() (attest.Collateral, bool) {
	if !i.Request.Kind.Stapled() {
		return attest.Collateral{}, false
	}
	c := i.clone()
	return attest.Collateral{Kind: attest.CollateralKind(i.Request.Kind), Body: c.Body, Certs: c.Certs}, true
}

func (i Item) clone() Item {
	i.Body, i.Certs = slices.Clone(i.Body), cloneAll(i.Certs)
	return i
}

func cloneAll(all [][]byte) [][]byte {
	out := make([][]byte, 0, len(all))
	for _, b := range all {
		out = append(out, slices.Clone(b))
	}
	return out
}

func (i Item) size() int {
	n := len(i.Body)
	for _, c := range i.Certs {
		n += len(c)
	}
	return n
}

// NewItem checks that body and certs are what the request names, and dates the
// item by its own words.
func NewItem(r Request, body []byte, certs [][]byte, fetched time.Time) (Item, error) {
	if err := r.Validate(); err != nil {
		return Item{}, err
	}
	if err := checkSizes(body, certs); err != nil {
		return Item{}, err
	}
	i := Item{Request: r, Body: body, Certs: certs, Fetched: fetched.UTC().Truncate(time.Second)}
	var err error
	switch r.Kind {
	case AMDVCEK:
		i.NextUpdate, err = checkVCEK(r, body)
	case AMDVCEKChain, AMDVLEKChain:
		i.Certs, i.NextUpdate, err = checkAMDChain(r, body)
	case IntelTCBInfo, IntelQEIdentity:
		i.NextUpdate, err = checkIntelJSON(r, body)
	default:
		i.NextUpdate, err = checkCRL(r, body)
	}
	if err != nil {
		return Item{}, err
	}
	i.NextUpdate = i.NextUpdate.UTC().Truncate(time.Second)
	if err := parseAll(i.Certs); err != nil {
		return Item{}, err
	}
	return i.clone(), nil
}

func checkSizes(body []byte, certs [][]byte) error {
	if len(body) == 0 || len(body) > attest.MaxCollateralBody {
		return fail(CodeTooLarge, fmt.Sprintf("1 to %d bytes", attest.MaxCollateralBody), fmt.Sprintf("%d bytes", len(body)), "")
	}
	if len(certs) > attest.MaxCerts {
		return fail(CodeIssuerChain, fmt.Sprintf("at most %d certificates", attest.MaxCerts), strconv.Itoa(len(certs)), "")
	}
	for _, c := range certs {
		if len(c) == 0 || len(c) > attest.MaxCert {
			return fail(CodeIssuerChain, fmt.Sprintf("certificates of 1 to %d bytes", attest.MaxCert), fmt.Sprintf("%d bytes", len(c)), "")
		}
	}
	return nil
}

func parseAll(certs [][]byte) error {
	for _, der := range certs {
		if _, err := x509.ParseCertificate(der); err != nil {
			return fail(CodeIssuerChain, "an X.509 certificate", short(err.Error()), "")
		}
	}
	return nil
}

func wrong(r Request, expected, actual string) error {
	return fail(CodeContent, fmt.Sprintf("for %s: %s", r, expected), short(actual), "")
}

// checkCRL goes by the issuer's name, which is all a CRL says about itself.
// Simulated vendors put a mark before the name.
func checkCRL(r Request, body []byte) (time.Time, error) {
	crl, err := x509.ParseRevocationList(body)
	if err != nil {
		return time.Time{}, wrong(r, "a CRL in DER", err.Error())
	}
	named, err := requestOfCRL(crl)
	if err != nil {
		return time.Time{}, err
	}
	if named != r {
		return time.Time{}, wrong(r, "a CRL by its issuer", "one by "+strconv.Quote(crl.Issuer.CommonName))
	}
	return crl.NextUpdate, nil
}

func requestOfCRL(crl *x509.RevocationList) (Request, error) {
	name := crl.Issuer.CommonName
	for _, product := range []string{productMilan, productGenoa, productTurin} {
		if strings.HasSuffix(name, "ARK-"+product) {
			return Request{Kind: AMDCRL, Product: product}, nil
		}
	}
	switch {
	case strings.HasSuffix(name, "PCK Platform CA"):
		return Request{Kind: IntelPCKCRL, CA: CAPlatform}, nil
	case strings.HasSuffix(name, "PCK Processor CA"):
		return Request{Kind: IntelPCKCRL, CA: CAProcessor}, nil
	case strings.HasSuffix(name, "SGX Root CA"):
		return RootCRL(), nil
	}
	return Request{}, fail(CodeContent, "a CRL of AMD or Intel", "one by "+strconv.Quote(short(name)), "")
}

// crlDER reads the encodings servers use: DER, PEM, and hex (PCCS).
func crlDER(b []byte) []byte {
	if block, rest := pem.Decode(b); block != nil && block.Type == "X509 CRL" && len(bytes.TrimSpace(rest)) == 0 {
		return block.Bytes
	}
	if der, err := hex.DecodeString(string(bytes.TrimSpace(b))); err == nil {
		return der
	}
	return b
}

// signedJSON is what this package reads of Intel's documents. The verifier
// reads them strictly; here a wrong reading costs a useless download.
type signedJSON struct {
	TCBInfo   *intelDates `json:"tcbInfo"`
	Identity  *intelDates `json:"enclaveIdentity"`
	Signature string      `json:"signature"`
}

type intelDates struct {
	ID         string    `json:"id"`
	FMSPC      string    `json:"fmspc"`
	NextUpdate time.Time `json:"nextUpdate"`
}

func checkIntelJSON(r Request, body []byte) (time.Time, error) {
	named, next, err := requestOfJSON(body)
	if err != nil {
		return time.Time{}, err
	}
	if named != r {
		return time.Time{}, wrong(r, "that document", named.String())
	}
	return next, nil
}

func requestOfJSON(body []byte) (Request, time.Time, error) {
	var doc signedJSON
	if err := json.Unmarshal(body, &doc); err != nil {
		return Request{}, time.Time{}, fail(CodeContent, "Intel's signed JSON", short(err.Error()), "")
	}
	const signatureHex = 2 * 64 // ECDSA P-256, r and s
	switch {
	case !lowerHex(strings.ToLower(doc.Signature), signatureHex/2):
		return Request{}, time.Time{}, fail(CodeContent, "Intel's signed JSON: a signature of 64 bytes in hex", strconv.Quote(short(doc.Signature)), "")
	case doc.TCBInfo != nil && doc.Identity == nil && doc.TCBInfo.ID == "TDX":
		r, err := TCBInfo(doc.TCBInfo.FMSPC)
		return r, doc.TCBInfo.NextUpdate, err
	case doc.Identity != nil && doc.TCBInfo == nil && doc.Identity.ID == "TD_QE":
		return QEIdentity(), doc.Identity.NextUpdate, nil
	}
	return Request{}, time.Time{}, fail(CodeContent, "TCB info of TDX or the identity of its quoting enclave (TD_QE)", "another document", "")
}

// checkAMDChain reads the PEM of the ASK or ASVK and the ARK.
func checkAMDChain(r Request, body []byte) ([][]byte, time.Time, error) {
	certs, err := parsePEMChain(body)
	if err != nil {
		return nil, time.Time{}, err
	}
	names := []string{"SEV-" + r.Product, "ARK-" + r.Product}
	if r.Kind == AMDVLEKChain {
		names[0] = "SEV-VLEK-" + r.Product
	}
	if len(certs) != len(names) {
		return nil, time.Time{}, wrong(r, "two certificates", strconv.Itoa(len(certs)))
	}
	var until time.Time
	for i, der := range certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, time.Time{}, fail(CodeIssuerChain, "an X.509 certificate", short(err.Error()), "")
		}
		if !strings.HasSuffix(c.Subject.CommonName, names[i]) {
			return nil, time.Time{}, wrong(r, "a certificate of "+names[i], strconv.Quote(c.Subject.CommonName))
		}
		if i == 0 || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return certs, until, nil
}

// parsePEMChain reads certificates and nothing else.
func parsePEMChain(text []byte) ([][]byte, error) {
	var certs [][]byte
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN")) {
			return nil, fail(CodeIssuerChain, "PEM certificates", "something else", "")
		}
		block, more := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fail(CodeIssuerChain, "PEM certificates", "another block", "")
		}
		if len(certs) == attest.MaxCerts {
			return nil, fail(CodeIssuerChain, fmt.Sprintf("at most %d certificates", attest.MaxCerts), "more", "")
		}
		certs, rest = append(certs, block.Bytes), more
	}
	if len(certs) == 0 {
		return nil, fail(CodeIssuerChain, "PEM certificates", "none", "")
	}
	if err := checkSizes([]byte{0}, certs); err != nil {
		return nil, err
	}
	if err := parseAll(certs); err != nil {
		return nil, err
	}
	return certs, nil
}

// ParseIssuerChain reads the URL-escaped PEM in Intel's response headers, the
// signer first. A plus sign is base64's, unless spaces are spelt so too.
func ParseIssuerChain(header string) ([][]byte, error) {
	if len(header) > maxHeader {
		return nil, fail(CodeIssuerChain, fmt.Sprintf("at most %d bytes", maxHeader), fmt.Sprintf("%d bytes", len(header)), "")
	}
	unescape := url.PathUnescape
	if strings.Contains(header, "BEGIN+CERTIFICATE") {
		unescape = url.QueryUnescape
	}
	text, err := unescape(header)
	if err != nil {
		return nil, fail(CodeIssuerChain, "URL-escaped PEM", short(err.Error()), "")
	}
	return parsePEMChain([]byte(text))
}
