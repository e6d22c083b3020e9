// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"
)

// Failure is why one thing about a piece of evidence was refused. The packages
// that read evidence return it; a Check is made of it. Texts may hold values
// from the evidence, so they are cut and escaped where they are printed.
type Failure struct {
	Code             string // stable, kebab-case
	Expected, Actual string
	Remedy           string // what can be done, or ""
}

func (f *Failure) Error() string {
	s := fmt.Sprintf("%s: expected %s, got %s", shown(f.Code), shown(f.Expected), shown(f.Actual))
	if f.Remedy != "" {
		s += "; " + shown(f.Remedy)
	}
	return s
}

// NewFailure returns a *Failure as an error.
func NewFailure(code, expected, actual, remedy string) error {
	return &Failure{Code: code, Expected: expected, Actual: actual, Remedy: remedy}
}

// FailureCode returns the code of the Failure in err, or "".
func FailureCode(err error) string {
	var f *Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}
