// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"encoding/hex"
	"encoding/pem"
	"strings"

	"github.com/c8s-dev/c8s/attest/tdx"
)

// platformOf finds what names a TDX quote's platform in its PCK certificate.
// Nothing is verified: it is only where to look.
func platformOf(quote []byte) (fmspc, ca string, err error) {
	refuse := func(actual string) (string, string, error) {
		return "", "", fail(CodeEvidence, "a quote with its PCK certificate", short(actual), "have the host put the PCK certificate chain into the quote")
	}
	q, err := tdx.ParseQuote(quote)
	if err != nil {
		return refuse(err.Error())
	}
	chain, err := tdx.ParseChain(q.PCKChain)
	if err != nil {
		return refuse(err.Error())
	}
	switch issuer := chain.Leaf.Issuer.CommonName; {
	case strings.HasSuffix(issuer, "PCK Platform CA"):
		ca = CAPlatform
	case strings.HasSuffix(issuer, "PCK Processor CA"):
		ca = CAProcessor
	default:
		return refuse("a certificate by " + issuer)
	}
	return hex.EncodeToString(chain.PCK.FMSPC[:]), ca, nil
}

func pemOf(certs [][]byte) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return b
}
