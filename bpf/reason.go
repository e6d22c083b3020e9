// SPDX-License-Identifier: Apache-2.0

package bpf

import "fmt"

// String returns the stable kebab-case name, as in metrics and flow records.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}

// Description returns one English sentence for people.
func (r Reason) Description() string {
	if int(r) < len(reasonDescriptions) {
		return reasonDescriptions[r]
	}
	return "A reason this version does not know."
}

// Reasons returns all refusals in numeric order, without ReasonAllowed.
func Reasons() []Reason {
	all := make([]Reason, 0, len(reasonNames)-1)
	for i := 1; i < len(reasonNames); i++ {
		all = append(all, Reason(i))
	}
	return all
}
