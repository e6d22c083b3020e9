// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"strings"
)

// platformOf finds what names a TDX quote's platform in its PCK certificate.
// That is only where to look: the verifier reads the quote for itself.
func platformOf(quote []byte) (fmspc, ca string, err error) {
	refuse := func(actual string) (string, string, error) {
		return "", "", fail(CodeEvidence, "a quote with its PCK certificate", short(actual), "have the host put the PCK certificate chain into the quote")
	}
	start := bytes.Index(quote, []byte("-----BEGIN CERTIFICATE-----"))
	if start < 0 {
		return refuse("none")
	}
	block, _ := pem.Decode(quote[start:])
	if block == nil {
		return refuse("broken PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return refuse(err.Error())
	}
	switch issuer := cert.Issuer.CommonName; {
	case strings.HasSuffix(issuer, "PCK Platform CA"):
		ca = CAPlatform
	case strings.HasSuffix(issuer, "PCK Processor CA"):
		ca = CAProcessor
	default:
		return refuse("a certificate by " + issuer)
	}
	id := fmspcOf(cert)
	if len(id) != fmspcSize {
		return refuse("a certificate without an FMSPC")
	}
	return hex.EncodeToString(id), ca, nil
}

// fmspcOf reads Intel's SGX extension (Intel SGX PCK Certificate and CRL
// Profile Specification, "SGX Extensions").
func fmspcOf(cert *x509.Certificate) []byte {
	sgx := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	fmspc := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1, 4}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(sgx) {
			continue
		}
		var parts []struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if _, err := asn1.Unmarshal(e.Value, &parts); err != nil {
			return nil
		}
		for _, p := range parts {
			if p.ID.Equal(fmspc) && p.Value.Tag == asn1.TagOctetString {
				return p.Value.Bytes
			}
		}
	}
	return nil
}

func pemOf(certs [][]byte) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return b
}
