// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"errors"
	"fmt"
)

// The stable codes of this package's refusals.
const (
	CodeReportFormat       = "report-format"
	CodeReportVersion      = "report-version"
	CodeReportReserved     = "report-reserved"
	CodeAlgorithm          = "report-algorithm"
	CodePolicyBits         = "guest-policy-unknown"
	CodePlatformBits       = "platform-info-unknown"
	CodeProductUnknown     = "product-unknown"
	CodeProductUnsupported = "product-unsupported"
	CodeProductMismatch    = "product-mismatch"
	CodeTCBReserved        = "tcb-reserved"
	CodeVLEK               = "signing-key-vlek"
	CodeSigningKey         = "signing-key"
	CodeCertificates       = "certificates-missing"
	CodeCertificate        = "certificate-format"
	CodeChain              = "chain"
	CodeChainExpired       = "chain-expired"
	CodeEndorsement        = "endorsement-format"
	CodeEndorsedTCB        = "endorsement-tcb"
	CodeEndorsedChip       = "endorsement-chip"
	CodeSignature          = "signature"
	CodeCertTable          = "cert-table"
)

// Error is a refusal: what was wanted and what was there.
type Error struct {
	Code             string
	Expected, Actual string
	Remedy           string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("checking SEV-SNP evidence: %s: expected %s, got %s", e.Code, e.Expected, e.Actual)
	if e.Remedy != "" {
		s += ": " + e.Remedy
	}
	return s
}

func fail(code, expected, actual, remedy string) error {
	return &Error{Code: code, Expected: expected, Actual: actual, Remedy: remedy}
}

// CodeOf returns the code of a refusal of this package, or "".
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
