// SPDX-License-Identifier: Apache-2.0

// Package denylistcmd is the operator's desk for the deny list: like that for
// the manifest, it never signs or shows as verified what package policy
// refuses, and never replaces a signed list.
package denylistcmd

import (
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// New returns the command "denylist" with all of its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "denylist",
		Short: "Take back at once what the manifest accepts",
		Long: `A deny list names certificates, keys, machines, measurements and workloads that
are refused although the manifest accepts them, for live connections too. It is
always the whole list, signed by the operators whom the manifest names, and each
version names the one before: what a new version leaves out is accepted again.

Exit codes: 0 success, 1 refused, 2 wrong usage.`,
		Example: `  c8s denylist add denylist.json --trust-domain example.org --machine <chip id> --reason "stolen"
  c8s denylist sign denylist.json --key operator.pem -o denylist.signed.json
  c8s denylist verify denylist.signed.json --operators operators.json

  # the next version
  c8s denylist add denylist.signed.json -o next.json --workload web --reason "CVE-2026-0001"
  c8s denylist diff denylist.signed.json next.json`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newAdd(), newRemove(), newSign(), newVerify(), newShow(), newDiff(), newPublish())
	return c
}

func lists() desk.Kind[policy.DenyList] {
	return desk.Kind[policy.DenyList]{
		Name: "deny list", Command: "c8s denylist", Type: policy.DenyListPayloadType, Max: policy.MaxDenyListEnvelope, Parse: policy.ParseDenyList,
	}
}
