// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/policy"
)

// The codes callers see. Codes of package policy and of verdicts are passed
// on as they are.
const (
	codeMalformed         = "malformed"
	codeTooManyChallenges = "too-many-challenges"
	codeTooFast           = "too-fast"
	codeTooManyLive       = "too-many-certificates"
	codeBusy              = "busy"
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
	codeOperators         = "operators-not-bound"
	codePending           = "manifest-pending"
	codeDenyListOrphaned  = "denylist-orphaned"
	codeCheckpoint        = "checkpoint-invalid"
	codeShare             = "share-invalid"
	codeNotRecovering     = "not-recovering"
	codeNotReady          = "not-ready"
	codeStoreUnavailable  = "store-unavailable"
	codeStoreRolledBack   = "store-rolled-back"
	codePolicyChanging    = "policy-changing"
	codeInternal          = "internal"
)

// refusal is a decision against a caller: the code is for the caller, the
// detail for the log.
type refusal struct {
	code, detail string
	retryAfter   time.Duration // zero: trying again does not help
}

func (r *refusal) Error() string { return r.code + ": " + r.detail }

func refuse(code, format string, args ...any) error {
	return &refusal{code: code, detail: fmt.Sprintf(format, args...)}
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
	case errors.Is(err, ledger.ErrRolledBack):
		return codeStoreRolledBack
	case errors.Is(err, ledger.ErrUnavailable):
		return codeStoreUnavailable
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
	case codeTooManyChallenges, codeTooFast, codeTooManyLive, codeBusy:
		return connect.CodeResourceExhausted
	case codeNodeRequired:
		return connect.CodeUnauthenticated
	case codeNotReady, codeStoreUnavailable, codeStoreRolledBack, codePolicyChanging:
		return connect.CodeUnavailable
	case codeInternal:
		return connect.CodeInternal
	}
	return connect.CodePermissionDenied
}

// Unavailable reports whether err is about the CDS and not about what it was
// asked: the same may succeed a moment later.
func Unavailable(err error) bool { return err != nil && status(codeOf(err)) == connect.CodeUnavailable }

// toCaller is the error a caller sees.
func toCaller(code string, err error) error {
	e := connect.NewError(status(code), errors.New(code))
	var own *refusal
	if errors.As(err, &own) && own.retryAfter > 0 {
		e.Meta().Set("Retry-After", strconv.Itoa(int(math.Ceil(own.retryAfter.Seconds()))))
	}
	return e
}
