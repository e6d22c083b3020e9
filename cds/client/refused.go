// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
)

// Codes of refusals this side makes.
const (
	CodeOperatorsNotBound  = "operators-not-bound"
	CodeCertificateForeign = "certificate-foreign"
	CodeReceipt            = "receipt-invalid"
	CodeLogForked          = "log-forked"
	CodeReplaced           = "cds-replaced"
	CodeCountersignature   = "countersignature-invalid"
)

// maxRetryAfter bounds how long a CDS can send a caller away.
const maxRetryAfter = 5 * time.Minute

// RefusedError is a refusal with its stable code, by this side or by the CDS.
type RefusedError struct {
	Code, Detail string
	RetryAfter   time.Duration // zero: the CDS does not say when to try again
}

func (e *RefusedError) Error() string {
	if e.Detail == "" {
		return "refused by the CDS: " + e.Code + " (the CDS's log says why)"
	}
	return e.Code + ": " + e.Detail
}

// elsewhere reports whether another replica may answer better: the refusal is
// about the state of the one that was asked.
func (e *RefusedError) elsewhere() bool {
	return e.Detail == "" && slices.Contains([]string{
		"not-ready", "store-unavailable", "store-rolled-back", "busy", "too-fast", "policy-changing", "internal",
		"nonce-unknown", "nonce-expired", "too-many-challenges", "too-many-certificates",
	}, e.Code)
}

// explain turns the CDS's code into a RefusedError.
func explain(err error) error {
	var remote *connect.Error
	if !errors.As(err, &remote) || !connect.IsWireError(err) {
		return err
	}
	switch remote.Code() {
	case connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.CodeInvalidArgument, connect.CodeResourceExhausted, connect.CodeUnavailable, connect.CodeInternal:
		return &RefusedError{Code: remote.Message(), RetryAfter: retryAfter(remote.Meta().Get("Retry-After"))}
	}
	return err
}

func retryAfter(header string) time.Duration {
	seconds, err := strconv.ParseUint(header, 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
