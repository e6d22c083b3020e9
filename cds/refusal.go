// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/policy"
)

// The codes callers see. Codes of package policy and of verdicts are passed
// on as they are.
const (
	codeMalformed         = "malformed"
	codeTooManyChallenges = "too-many-challenges"
	codeTooFast           = "too-fast"
	codeNonceUnknown      = "nonce-unknown"
	codeNonceExpired      = "nonce-expired"
	codeNonceForeign      = "nonce-foreign"
	codeKeyMismatch       = "key-mismatch"
	codeKeyUnsupported    = "key-unsupported"
	codeNodeRequired      = "node-certificate-required"
	codeEvidenceUnknown   = "evidence-unknown"
	codeStatementForged   = "statement-forged"
	codeStatementMismatch = "statement-mismatch"
	codeIdentityChanged   = "identity-changed"
	codeInternal          = "internal"
)

// refusal is a decision against a caller: the code is for the caller, the
// detail for the log.
type refusal struct{ code, detail string }

func (r *refusal) Error() string { return r.code + ": " + r.detail }

func refuse(code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// codeOf finds the stable code in err.
func codeOf(err error) string {
	var own *refusal
	var verdict *attest.RefusedError
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &verdict):
		return verdict.Code
	}
	if code := policy.CodeOf(err); code != "" {
		return string(code)
	}
	if code := ratls.CodeOf(err); code != "" {
		return string(code)
	}
	return codeInternal
}

// status is how a code travels; the code itself is the message.
func status(code string) connect.Code {
	switch code {
	case codeMalformed:
		return connect.CodeInvalidArgument
	case codeTooManyChallenges, codeTooFast:
		return connect.CodeResourceExhausted
	case codeNodeRequired:
		return connect.CodeUnauthenticated
	case codeInternal:
		return connect.CodeInternal
	}
	return connect.CodePermissionDenied
}
