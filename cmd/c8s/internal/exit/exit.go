// SPDX-License-Identifier: Apache-2.0

// Package exit gives every c8s command the same exit codes: 0 success,
// 1 refused or failed, 2 wrong usage, 3 nothing refuted but not everything
// proven, such as for want of current collateral.
package exit

import "errors"

// The exit codes of all commands.
const (
	OK      = 0
	Refused = 1
	Misuse  = 2
	Partial = 3
)

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err as the caller's mistake.
func Usage(err error) error { return usageError{err} }

type partialError struct{ error }

func (e partialError) Unwrap() error { return e.error }

// Partly marks err as the word that nothing is wrong as far as could be seen,
// and that not all could be seen: more, such as current collateral, may turn it.
func Partly(err error) error { return partialError{err} }

// Code returns the exit code for err.
func Code(err error) int {
	var usage usageError
	var partial partialError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &partial):
		return Partial
	case errors.As(err, &usage):
		return Misuse
	default:
		return Refused
	}
}
