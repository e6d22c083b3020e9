// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

func newNext() *cobra.Command {
	var f desk.Destination
	var notBefore string
	c := &cobra.Command{
		Use:   "next SIGNED",
		Short: "Start the next version of a signed manifest",
		Long: `Writes the manifest of a signed one as its successor: the version is one higher,
and previous is the digest of the signed one. A time lock (notBefore) is not taken
over. Edit it, look at the difference, and have it signed by the operators that
the signed one names. SIGNED may be "-".`,
		Example: `  c8s manifest next manifest.signed.json -o next.json
  c8s manifest diff manifest.signed.json next.json

  # published today, in force at the new year
  c8s manifest next manifest.signed.json -o next.json --not-before 2027-01-01T00:00:00Z`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := openDraft(c, args[0])
			if err != nil {
				return err
			}
			if !d.signed {
				return exit.Usage(fmt.Errorf("%s is not signed: only a signed manifest has a successor", args[0]))
			}
			d.manifest.NotBefore = notBefore
			return d.save(c, &f)
		},
	}
	c.Flags().StringVar(&notBefore, "not-before", "", "when the next version comes into force, RFC 3339 in UTC and whole seconds (default: at once)")
	f.RegisterFor(c, "the next version")
	return c
}
