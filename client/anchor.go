// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

// Anchor is what a caller trusts beforehand: one of the two that FromOperators
// and FromCDS return. The zero value is none.
type Anchor struct {
	operators *policy.Operators
	cds       *policy.AppraisalPolicy
}

// FromOperators trusts the operators: whatever CDS was launched for them, and
// is accepted by the manifest they signed.
func FromOperators(o policy.Operators) Anchor { return Anchor{operators: &o} }

// FromCDS trusts a CDS that the policy accepts for the role cds. The operators
// are those whom it was launched for; they are found in the manifests it serves.
func FromCDS(p *policy.AppraisalPolicy) Anchor { return Anchor{cds: p} }

func (a Anchor) check() error {
	switch {
	case a.operators != nil:
		return a.operators.Validate()
	case a.cds != nil:
		if _, err := policy.EncodeAppraisalPolicy(a.cds); err != nil {
			return err
		}
		return nil
	}
	return errors.New("there is no trust anchor: use FromOperators or FromCDS")
}

// id tells anchors apart in what is remembered.
func (a Anchor) id() string {
	if a.operators != nil {
		return "operators:" + operatorsHex(*a.operators)
	}
	text, err := policy.EncodeAppraisalPolicy(a.cds)
	if err != nil { // New has refused it
		return ""
	}
	return "cds:" + string(policy.DigestOf(text))
}

// String says what the anchor is, for people.
func (a Anchor) String() string {
	if a.operators != nil {
		return fmt.Sprintf("operators %s (%d of %d must sign)", operatorsHex(*a.operators), a.operators.Threshold, len(a.operators.Keys))
	}
	return "measurements of the CDS"
}

func operatorsHex(o policy.Operators) string {
	digest := o.Digest()
	return hex.EncodeToString(digest[:])
}
