// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// The last arcs of AMD's VCEK extensions (57230, "VCEK Certificate").
const (
	arcSPL  = 3
	arcHWID = 4
)

func checkVCEK(r Request, der []byte) (time.Time, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return time.Time{}, wrong(r, "a certificate in DER", err.Error())
	}
	named, err := requestOfVCEK(cert)
	if err != nil {
		return time.Time{}, err
	}
	if named != r {
		return time.Time{}, wrong(r, "the certificate of that chip and TCB", named.String())
	}
	return cert.NotAfter, nil
}

// requestOfVCEK says which request the certificate answers. The issuer names
// the product line: the productName of Siena and Bergamo is not Genoa.
func requestOfVCEK(cert *x509.Certificate) (Request, error) {
	_, product, ok := strings.Cut(cert.Issuer.CommonName, "SEV-")
	if !ok || cert.IsCA {
		return Request{}, fail(CodeContent, "a VCEK", "a certificate for "+strconv.Quote(short(cert.Subject.CommonName)), "")
	}
	hwid := vcekExtension(cert, arcHWID)
	size := chipIDSize
	if product == productTurin {
		size = turinChipIDSize
	}
	// AMD has used the bare bytes, and the bytes in an OCTET STRING.
	if len(hwid) == size+2 && bytes.HasPrefix(hwid, []byte{asn1.TagOctetString, byte(size)}) {
		hwid = hwid[2:]
	}
	r := Request{Kind: AMDVCEK, Product: product, ChipID: hex.EncodeToString(hwid), TCB: policy.TCB{
		BootLoader: vcekSPL(cert, 1), TEE: vcekSPL(cert, 2), SNP: vcekSPL(cert, 3), Microcode: vcekSPL(cert, 8),
	}}
	if product == productTurin {
		r.TCB.FMC = vcekSPL(cert, 9)
	}
	return r, r.Validate()
}

func vcekExtension(cert *x509.Certificate, arcs ...int) []byte {
	oid := snp.AMDArc(arcs...)
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Value
		}
	}
	return nil
}

// vcekSPL reads a level as zero where it cannot be read: the certificate then
// matches no request but one for zero, and the verifier refuses it.
func vcekSPL(cert *x509.Certificate, which int) uint8 {
	var v int
	rest, err := asn1.Unmarshal(vcekExtension(cert, arcSPL, which), &v)
	if err != nil || len(rest) != 0 || v < 0 || v > 255 {
		return 0
	}
	return uint8(v) //nolint:gosec // at most 255
}
