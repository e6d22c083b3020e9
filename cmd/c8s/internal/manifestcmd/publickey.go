// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

func newPublicKey() *cobra.Command {
	var f desk.Edit
	c := &cobra.Command{
		Use:   "public-key KEY",
		Short: "Write the public half of an operator's key, to be named in a manifest",
		Long: `Reads the public key that a file holds or a PKCS#11 URI names, writes it as PEM and
prints its id. A token is not asked for its PIN. 'init --operator-key' takes the
file.`,
		Example: `  c8s manifest public-key -o alice.pub \
    'pkcs11:token=operators;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so'
  c8s manifest public-key alice.pub`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) (err error) {
			ring := operatorkey.NewRing(c)
			defer func() { err = errors.Join(err, ring.Close()) }()
			public, err := ring.Public(args[0])
			if err != nil {
				return err
			}
			key, err := policy.NewOperatorKey("operator", public)
			if err != nil {
				return err
			}
			id, err := key.ID()
			if err != nil {
				return err
			}
			text, err := operatorkey.EncodePublic(public)
			if err != nil {
				return err
			}
			if err := desk.Emit(c.OutOrStdout(), f.Out, text, f.Force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "%s, keyid %s\n", key.Algorithm, id)
			return err
		},
	}
	c.Flags().StringVarP(&f.Out, "out", "o", desk.Stdio, "file for the public key, or - for standard output")
	c.Flags().BoolVar(&f.Force, "force", false, "replace the output file if it exists")
	return c
}
