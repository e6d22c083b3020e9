// SPDX-License-Identifier: Apache-2.0

// Package denylistcmd is the operator's desk for the deny list: like that for
// the manifest, it never signs or shows as verified what package policy
// refuses, and never replaces a signed list.
package denylistcmd

import (
	"fmt"

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
		Args: desk.UsageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newAdd(), newRemove(), newSign(), newVerify(), newShow(), newDiff(), newPublish())
	return c
}

// document is a file that holds a deny list, signed or not.
type document struct {
	raw      []byte
	envelope *policy.Envelope // nil for a bare list
	list     *policy.DenyList
}

// load reads a deny list without judging its signatures.
func load(c *cobra.Command, path string) (*document, error) {
	raw, err := desk.ReadInput(c, path, policy.MaxDenyListEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the deny list: %w", err)
	}
	d := &document{raw: raw}
	payload := raw
	if desk.IsEnvelope(raw) {
		if d.envelope, err = policy.ParseEnvelopeOf(raw, policy.MaxDenyListEnvelope); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if t := d.envelope.PayloadType; t != policy.DenyListPayloadType {
			return nil, wrongPayload(path, t)
		}
		payload = d.envelope.Payload
	}
	if d.list, err = policy.ParseDenyList(payload); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func wrongPayload(path, payloadType string) error {
	remedy := ""
	if payloadType == policy.PayloadType {
		remedy = "; it is a manifest, for 'c8s manifest'"
	}
	return fmt.Errorf("%s: the envelope holds %q, not a deny list%s", path, payloadType, remedy)
}
