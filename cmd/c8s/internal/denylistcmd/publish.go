// SPDX-License-Identifier: Apache-2.0

package denylistcmd

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
		Short: "Put a signed deny list in force",
		Long: `Shows what the list denies and lifts against the one in force, asks, publishes, and
waits until it is in force. What it denies is cut off within seconds, running
connections too. What is in force already is left as it is, so that the command
may be repeated.

` + cdsflag.Help + `

Exit codes: 0 in force, or looked at with --dry-run; 1 refused; 2 wrong usage.`,
		Example: `  c8s denylist publish next.signed.json --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json
  c8s denylist publish next.signed.json --cds cds-1,cds-2 --operators operators.json --manifest manifest.signed.json --yes -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := lists().ReadSigned(c, args[0])
			if err != nil {
				return err
			}
			return f.Run(c, publish.DenyList{Envelope: file.Raw})
		},
	}
	f.Register(c)
	return c
}
