// SPDX-License-Identifier: Apache-2.0

// Package manifestcmd is the operator's desk: it writes nothing over anything
// that exists unless told to, and never signs or shows as verified what
// package policy refuses.
package manifestcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
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
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exit.Usage(fmt.Errorf("%w\nRun '%s --help' for the flags", err, c.CommandPath()))
	})
	c.AddCommand(newInit(), newSign(), newVerify(), newShow(), newDiff())
	return c
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return exit.Usage(fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
		}
		return nil
	}
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
	raw, err := readInput(c, path)
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

// readInput reads a manifest from a file, or from standard input for "-".
func readInput(c *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return readLimited(c.InOrStdin(), policy.MaxEnvelope)
	}
	return readFile(path, policy.MaxEnvelope)
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readLimited(f, limit)
}

// readLimited reads one byte over the limit, so that the parser sees and
// refuses what is too large.
func readLimited(in io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(in, limit+1))
}

// outputFlag is "-o": a table for people or JSON.
type outputFlag struct{ format string }

func (f *outputFlag) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.format, "output", "o", "text", "format of the output: text or json")
}

func (f *outputFlag) check() error {
	if f.format != "text" && f.format != "json" {
		return exit.Usage(fmt.Errorf("--output must be text or json, not %q", f.format))
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
