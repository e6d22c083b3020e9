// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

func newRecoveryKey() *cobra.Command {
	c := &cobra.Command{
		Use:   "recovery-key",
		Short: "Make keys that can bring the mesh's root back",
		Long: `A manifest may name recovery keys, of which a threshold can bring the mesh's root
back when every replica of the CDS is gone. They sign nothing, and operators'
signing keys recover nothing.`,
		Example: `  c8s manifest recovery-key new --name alice -o alice.recovery.pem`,
		Args:    desk.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newRecoveryKeyNew())
	return c
}

func newRecoveryKeyNew() *cobra.Command {
	var name string
	var f desk.Destination
	c := &cobra.Command{
		Use:   "new --name NAME -o FILE",
		Short: "Make a recovery key",
		Long: `Writes a new X25519 key (PKCS#8 PEM, mode 0600), and on standard output the entry
for the manifest's "recovery": {"threshold": ..., "keys": [...]}. Keep the file
offline: it is needed on one bad day only, and with enough others it is the root.`,
		Example: `  c8s manifest recovery-key new --name alice -o alice.recovery.pem`,
		Args:    desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if name == "" || f.Path == "" || f.Path == desk.Stdio {
				return exit.Usage(errors.New("--name and -o FILE are required: whose key it is, and where to keep it"))
			}
			public, err := operatorkey.NewRecoveryKey(f.Path, f.Force)
			if err != nil {
				return fmt.Errorf("making a recovery key: %w", err)
			}
			return desk.WriteJSON(c.OutOrStdout(), policy.RecoveryKey{Name: name, PublicKey: base64.StdEncoding.EncodeToString(public[:])})
		},
	}
	c.Flags().StringVar(&name, "name", "", "whose key it is (required)")
	c.Flags().StringVarP(&f.Path, "out", "o", "", "file for the private key (required)")
	c.Flags().BoolVar(&f.Force, "force", false, "replace the file if it exists")
	return c
}
