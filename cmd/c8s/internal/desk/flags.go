// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// UsageArgs makes a wrong number of arguments a usage error.
func UsageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return exit.Usage(fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
		}
		return nil
	}
}

// FlagError makes a wrong flag a usage error.
func FlagError(c *cobra.Command, err error) error {
	return exit.Usage(fmt.Errorf("%w\nRun '%s --help' for the flags", err, c.CommandPath()))
}

// Output is the flag "-o": text for people or JSON.
type Output struct{ format string }

// Register adds the flag to c.
func (f *Output) Register(c *cobra.Command) {
	c.Flags().StringVarP(&f.format, "output", "o", "text", "format of the output: text or json")
	// Fails for a flag that is not there, or twice.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// Check refuses other formats.
func (f *Output) Check() error {
	if f.format != "text" && f.format != "json" {
		return exit.Usage(fmt.Errorf("--output must be text or json, not %q", f.format))
	}
	return nil
}

// JSON reports whether JSON is wanted.
func (f *Output) JSON() bool { return f.format == "json" }

// WriteJSON writes one indented value.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
