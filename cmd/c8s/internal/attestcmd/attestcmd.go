// SPDX-License-Identifier: Apache-2.0

// Package attestcmd shows and appraises evidence of confidential machines. It
// decides nothing itself: attest/appraise does, under a policy that the caller
// names, and without the network.
package attestcmd

import (
	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// New returns the command "attest" with all of its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "attest",
		Short: "Collect, show and verify evidence of confidential machines",
		Long: `Evidence is a machine's signed word about what runs on it: an AMD SEV-SNP report,
an Intel TDX quote, or either with the TPM quote of Azure's paravisor.

EVIDENCE is a file, or - for standard input, in any of these forms:
  what 'c8s attest collect' writes (RFC 9999 conceptual message wrapper, CBOR or JSON)
  a raw SEV-SNP report of 1,184 bytes; give its certificates with --cert
  a raw TDX quote; it carries its certificates
  Azure evidence as JSON with tpm_quote and hcl_report

Nothing is fetched: collateral comes with the evidence or with --collateral, see
'c8s collateral'.

Exit codes: 0 accepted, 1 refused, 2 wrong usage, 3 refused only because the
vendor's collateral is missing or out of date.`,
		Example: `  c8s attest show evidence.cbor
  c8s attest show quote.dat -o policy >policy.json
  c8s attest verify quote.dat --policy policy.json --unbound
  c8s attest explain endorsement-tcb`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newCollect(), newShow(), newVerify(), newExplain())
	return c
}
