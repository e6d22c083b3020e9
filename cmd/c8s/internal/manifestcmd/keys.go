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

func newNewKey() *cobra.Command {
	var algorithm string
	var force bool
	c := &cobra.Command{
		Use:   "new-key FILE",
		Short: "Make an operator's key",
		Long: `Writes a new private key to FILE (PKCS#8 PEM, mode 0600) and the public one to
FILE.pub, which is what the others need. A key on a token is made with the tools
of its vendor: see 'c8s manifest public-key'.`,
		Example: `  c8s manifest new-key alice.pem
  c8s manifest init --trust-domain example.org --operator-key alice=alice.pem.pub`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := desk.CheckFree(force, args[0], args[0]+operatorkey.PublicSuffix); err != nil {
				return err
			}
			key, err := operatorkey.Generate(algorithm)
			if err != nil {
				return err
			}
			if err := operatorkey.Write(args[0], key, force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s\nwrote %s\n", args[0], args[0]+operatorkey.PublicSuffix)
			return err
		},
	}
	c.Flags().StringVar(&algorithm, "algorithm", policy.AlgorithmEd25519, "algorithm of the key: ed25519 or ecdsa-p256")
	c.Flags().BoolVar(&force, "force", false, "replace files that exist")
	return c
}

func newPublicKey() *cobra.Command {
	var f desk.Destination
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
			if err := desk.Emit(c.OutOrStdout(), f.Path, text, f.Force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "%s, keyid %s\n", key.Algorithm, id)
			return err
		},
	}
	f.RegisterFor(c, "the public key")
	return c
}
