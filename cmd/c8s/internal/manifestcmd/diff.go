// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

func newDiff() *cobra.Command {
	var output desk.Output
	c := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say what a new manifest allows more, and what less",
		Long: `Lists the differences of two manifests, signed or not, and for each whether it
widens or narrows what is allowed. Order inside lists means nothing. Signatures
are not checked. The exit code is 0 whether there are differences or not.`,
		Example: `  c8s manifest diff manifest.signed.json next.json
  c8s manifest diff manifest.signed.json next.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return desk.Manifests().Diff(c, &output, args, policy.Diff)
		},
	}
	output.Register(c)
	return c
}
