// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

const maxOperatorsFile = 1 << 20

// ReadOperators reads the operators' file, as 'c8s manifest init' writes it.
func ReadOperators(path string) (policy.Operators, error) {
	text, err := ReadFile(path, maxOperatorsFile)
	if err != nil {
		return policy.Operators{}, fmt.Errorf("reading the operators: %w", err)
	}
	operators, err := policy.ParseOperators(text)
	if err != nil {
		return policy.Operators{}, fmt.Errorf("%s: %w", path, err)
	}
	return operators, nil
}
