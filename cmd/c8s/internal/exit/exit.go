// SPDX-License-Identifier: Apache-2.0

// Package exit gives every c8s command the same exit codes: 0 success,
// 1 refused or failed, 2 wrong usage.
package exit

import "errors"

// The exit codes of all commands.
const (
	OK      = 0
	Refused = 1
	Misuse  = 2
)

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err as the caller's mistake.
func Usage(err error) error { return usageError{err} }

// Code returns the exit code for err.
func Code(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &usage):
		return Misuse
	default:
		return Refused
	}
}
