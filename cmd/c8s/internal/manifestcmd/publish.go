// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/publish"
)

func newPublish() *cobra.Command {
	var f publish.Flags
	c := &cobra.Command{
		Use:   "publish FILE --cds ADDR --operators FILE --manifest FILE",
		Short: "Put a signed manifest in force",
		Long: `Shows what changes against the manifest in force, what works now and will not, and
whether the CDS itself would still be accepted. Then it asks, publishes, and waits
until the manifest is in force; one with a time lock is accepted and waits. What is
in force already is left as it is, so that the command may be repeated.

` + cdsflag.Help + `

Exit codes: 0 in force, accepted and locked, or looked at with --dry-run; 1 refused;
2 wrong usage.`,
		Example: `  c8s manifest publish next.signed.json --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json

  # in a pipeline: look first, then publish without being asked
  c8s manifest publish next.signed.json --cds cds-1,cds-2 --operators operators.json --manifest manifest.signed.json --dry-run
  c8s manifest publish next.signed.json --cds cds-1,cds-2 --operators operators.json --manifest manifest.signed.json --yes -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := desk.Manifests().ReadSigned(c, args[0])
			if err != nil {
				return err
			}
			return f.Run(c, publish.Manifest{Envelope: file.Raw})
		},
	}
	f.Register(c)
	return c
}
