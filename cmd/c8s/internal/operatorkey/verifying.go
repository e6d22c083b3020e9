// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// Verifying is the flags of a command that verifies a signed document.
type Verifying struct {
	Previous string // file of the document that must come before; empty: none
	trust    Trust
	output   desk.Output
}

// Register adds the flags to c.
func (v *Verifying) Register(c *cobra.Command, what string) {
	v.trust.Register(c)
	c.Flags().StringVar(&v.Previous, "previous", "", "signed "+what+" that this one replaces")
	v.output.Register(c)
}

// Verified is what a check found: the JSON output, and its text for people.
type Verified interface{ Print(w io.Writer) error }

// Run has a document checked under the operators that the flags name.
func (v *Verifying) Run(c *cobra.Command, check func(trusted policy.Operators) (Verified, error)) (err error) {
	ring := NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	trusted, err := v.trust.Load(c, ring)
	if err != nil {
		return err
	}
	out, err := check(trusted)
	if err != nil {
		return err
	}
	return v.output.Write(c, out, out.Print)
}

// Signatures is the part of the output that is the same for all documents.
type Signatures struct {
	Signers  []string                  `json:"signers"`
	Ignored  []policy.IgnoredSignature `json:"ignored"`
	Succeeds policy.Digest             `json:"succeeds,omitempty"` // with --previous
}

// NewSignatures has no null lists.
func NewSignatures(signers []string, ignored []policy.IgnoredSignature) Signatures {
	return Signatures{Signers: signers, Ignored: append([]policy.IgnoredSignature{}, ignored...)}
}

// PrintAs prints what was verified, and by whom it is signed.
func (s *Signatures) PrintAs(w io.Writer, title string, digest policy.Digest) error {
	var b strings.Builder
	fmt.Fprintf(&b, "verified: %s\ndigest:   %s\nsigners:  %s\n", title, digest, strings.Join(s.Signers, ", "))
	for _, i := range s.Ignored {
		fmt.Fprintf(&b, "ignored:  signature with keyid %q: %s\n", i.KeyID, i.Reason)
	}
	if s.Succeeds != "" {
		fmt.Fprintf(&b, "succeeds: %s\n", s.Succeeds)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
