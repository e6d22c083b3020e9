// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"errors"
	"fmt"
)

// Code is a stable, kebab-case name for the reason of a refusal.
type Code string

// The reasons. docs/attestation.md explains them.
const (
	CodeNoCertificate Code = "peer-no-certificate"
	CodeChain         Code = "peer-chain"
	CodeDates         Code = "peer-expired"
	CodeUsage         Code = "peer-key-usage"
	CodeCA            Code = "peer-is-ca"
	CodeNames         Code = "peer-names"
	CodeTrustDomain   Code = "peer-trust-domain"
	CodeClaims        Code = "peer-claims"
	CodeNameClaims    Code = "peer-name-claims"
	CodeResumed       Code = "peer-resumed"
	CodeNoVerifier    Code = "peer-no-verifier"
	CodeNative        Code = "native-certificate"
	CodeNativeDates   Code = "native-expired"
	CodeEvidence      Code = "native-evidence"
)

// Error is a refused certificate.
type Error struct {
	Code Code
	err  error
}

func (e *Error) Error() string { return e.err.Error() + " (" + string(e.Code) + ")" }
func (e *Error) Unwrap() error { return e.err }

func refuse(code Code, format string, args ...any) error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

// CodeOf returns the code of a refusal of this package, or "".
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
