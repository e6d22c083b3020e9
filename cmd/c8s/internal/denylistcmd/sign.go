// SPDX-License-Identifier: Apache-2.0

package denylistcmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

func newSign() *cobra.Command {
	var s operatorkey.Signing
	c := &cobra.Command{
		Use:   "sign FILE --key KEY",
		Short: "Sign a deny list, or add a signature to a signed one",
		Long: `Signs a deny list and writes a DSSE envelope. When FILE already is an envelope
the signature is added to it. FILE may be "-".

` + operatorkey.SigningHelp,
		Example: `  c8s denylist sign denylist.json --key alice.pem -o denylist.signed.json

  # the second operator adds a signature, in place
  c8s denylist sign denylist.signed.json --key bob.pem -o denylist.signed.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := s.Check(); err != nil {
				return err
			}
			d, err := lists().Read(c, args[0])
			if err != nil {
				return err
			}
			if err := s.Run(c, d.File, policy.SignDenyList, policy.AddSignature); err != nil {
				return err
			}
			l := d.Content
			_, err = fmt.Fprintf(c.ErrOrStderr(), "signed deny list %d of %s with %d entries, %s\n", l.Version, l.TrustDomain, len(l.Entries), l.Digest())
			return err
		},
	}
	s.Register(c)
	return c
}
