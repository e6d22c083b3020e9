// SPDX-License-Identifier: Apache-2.0

// Package manifestcmd is the operator's desk: it writes nothing over anything
// that exists unless told to, and never signs or shows as verified what
// package policy refuses.
package manifestcmd

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
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
  c8s manifest sign manifest.json --key operator.pem -o manifest.signed.json
  c8s manifest verify manifest.signed.json --operators operators.json
  c8s manifest diff manifest.signed.json next.json`,
		Args: desk.UsageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newInit(), newSign(), newVerify(), newShow(), newDiff())
	return c
}

// document is a file that holds a manifest, signed or not.
type document struct {
	payload  []byte
	envelope *policy.Envelope // nil for a bare manifest
	raw      []byte
	manifest *policy.Manifest
}

// load reads a manifest without judging its signatures.
func load(c *cobra.Command, path string) (*document, error) {
	raw, err := desk.ReadInput(c, path, policy.MaxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	d := &document{payload: raw, raw: raw}
	if isEnvelope(raw) {
		if d.envelope, err = policy.ParseEnvelope(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if d.envelope.PayloadType != policy.PayloadType {
			return nil, fmt.Errorf("%s: the envelope holds %q, not a manifest", path, d.envelope.PayloadType)
		}
		d.payload = d.envelope.Payload
	}
	if d.manifest, err = policy.Parse(d.payload); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// isEnvelope only chooses the parser, which then is strict.
func isEnvelope(raw []byte) bool {
	var probe map[string]json.RawMessage
	if json.Unmarshal(raw, &probe) != nil {
		return false
	}
	_, ok := probe["payloadType"]
	return ok
}

// newRing opens keys for one run of c. The caller closes it.
func newRing(c *cobra.Command) *operatorkey.Ring {
	return &operatorkey.Ring{Warn: c.ErrOrStderr(), LookupEnv: os.LookupEnv}
}
