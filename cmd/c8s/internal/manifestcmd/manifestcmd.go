// SPDX-License-Identifier: Apache-2.0

// Package manifestcmd is the operator's desk: it writes nothing over anything
// that exists unless told to, and never signs or shows as verified what
// package policy refuses.
package manifestcmd

import (
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// New returns the command "manifest" with all of its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "manifest",
		Short: "Write, sign and check the operator's manifest",
		Long: `A manifest names the machines and workloads of a mesh. It is JSON, signed by a
threshold of operators in a DSSE envelope; nodes accept nothing else.

Exit codes: 0 success, 1 refused, 2 wrong usage.`,
		Example: `  c8s manifest init --trust-domain example.org --new-key operator.pem
  c8s manifest derive shop.yaml | c8s manifest add-workload manifest.json --entries -
  c8s manifest lint manifest.json
  c8s manifest sign manifest.json --key operator.pem -o manifest.signed.json
  c8s manifest verify manifest.signed.json --operators operators.json

  # the next version
  c8s manifest add-image manifest.signed.json -o next.json --workload web --image <name@digest>
  c8s manifest diff manifest.signed.json next.json`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newInit(), newNext(), newAddWorkload(), newAddImage(), newAddSigner(), newAddSandbox(), newAddIngress(), newDerive(), newNewKey(), newPublicKey(), newRecoveryKey(), newLint(), newSign(), newVerify(), newShow(), newDiff(), newHistory(), newPublish())
	return c
}

type document = desk.Document[policy.Manifest]
