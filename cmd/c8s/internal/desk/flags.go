// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// UsageArgs makes a wrong number of arguments a usage error, and flags that
// exclude each other too.
func UsageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return exit.Usage(fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
		}
		return CheckGroups(c)
	}
}

// NoArgs is UsageArgs for commands that take no arguments. What is given to one
// with commands below it is a command that was misspelt.
func NoArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 || !c.HasAvailableSubCommands() {
		return UsageArgs(none)(c, args)
	}
	c.SuggestionsMinimumDistance = max(c.SuggestionsMinimumDistance, 2) // two letters swapped
	hint := fmt.Sprintf("run '%s --help' for the list", c.CommandPath())
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean '" + strings.Join(near, "' or '") + "'?"
	}
	return exit.Usage(fmt.Errorf("there is no command '%s %s': %s", c.CommandPath(), args[0], hint))
}

func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is not expected: '%s' takes no arguments", args[0], c.CommandPath())
	}
	return nil
}

// CheckGroups refuses flags that exclude each other, wherever they came from.
// Cobra does so by itself, but does not say that it was wrong usage, and not in
// words that name the flags.
func CheckGroups(c *cobra.Command) error {
	err := c.ValidateFlagGroups()
	if err == nil {
		return nil
	}
	_, both, _ := strings.Cut(err.Error(), "; [")
	if both, ok := strings.CutSuffix(both, "] were all set"); ok {
		err = fmt.Errorf("--%s exclude each other", strings.Join(strings.Fields(both), " and --"))
	}
	return FlagError(c, err)
}

// FlagError makes a wrong flag a usage error.
func FlagError(c *cobra.Command, err error) error {
	return exit.Usage(fmt.Errorf("%w\nRun '%s --help' for the flags", err, c.CommandPath()))
}

// Output is the flag "-o" of a command that reports: the format. Unknown ones
// are refused before the command runs.
type Output struct {
	format  string
	formats []string
}

// Register adds the flag to c. The first format is the default; without any they
// are text and json.
func (f *Output) Register(c *cobra.Command, formats ...string) {
	if len(formats) == 0 {
		formats = []string{"text", "json"}
	}
	f.format, f.formats = formats[0], formats
	c.Flags().VarP(f, "output", "o", "format of the output: "+f.choices())
	// Fails for a flag that is not there, or twice.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (f *Output) choices() string {
	last := len(f.formats) - 1
	return strings.Join(f.formats[:last], ", ") + " or " + f.formats[last]
}

// Set implements pflag.Value.
func (f *Output) Set(format string) error {
	if !slices.Contains(f.formats, format) {
		return errors.New("must be " + f.choices())
	}
	f.format = format
	return nil
}

// String implements pflag.Value.
func (f *Output) String() string { return f.format }

// Type implements pflag.Value.
func (f *Output) Type() string { return "format" }

// JSON reports whether JSON is wanted.
func (f *Output) JSON() bool { return f.format == "json" }

// Write prints v as JSON, or text for people.
func (f *Output) Write(c *cobra.Command, v any, text func(io.Writer) error) error {
	if f.JSON() {
		return WriteJSON(c.OutOrStdout(), v)
	}
	return text(c.OutOrStdout())
}

// WriteJSON writes one indented value.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
