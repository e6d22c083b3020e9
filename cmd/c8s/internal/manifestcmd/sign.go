// SPDX-License-Identifier: Apache-2.0

package manifestcmd

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
		Short: "Sign a manifest, or add a signature to a signed one",
		Long: `Signs a manifest and writes a DSSE envelope. When FILE already is an envelope
the signature is added to it; the manifest inside stays byte for byte the same.
A manifest that nodes would refuse is not signed. FILE may be "-".

` + operatorkey.SigningHelp,
		Example: `  c8s manifest sign manifest.json --key alice.pem -o manifest.signed.json

  # the second operator adds a signature, in place
  c8s manifest sign manifest.signed.json --key bob.pem -o manifest.signed.json

  # with a key that never leaves its token
  c8s manifest sign manifest.json -o manifest.signed.json --key \
    'pkcs11:token=operators;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin.txt'`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := s.Check(); err != nil {
				return err
			}
			d, err := desk.Manifests().Read(c, args[0])
			if err != nil {
				return err
			}
			if err := s.Run(c, d.File, policy.Sign, policy.AddSignature); err != nil {
				return err
			}
			m := d.Content
			_, err = fmt.Fprintf(c.ErrOrStderr(), "signed version %d of %s, %s\n", m.Version, m.TrustDomain, m.Digest())
			return err
		},
	}
	s.Register(c)
	return c
}
