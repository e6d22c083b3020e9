// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

func TestWrongUsageIsSaidAndTold(t *testing.T) {
	for line, want := range map[string]string{
		"status --a --b": "--a and --b exclude each other",
		"status more":    `"more" is not expected: 'top status' takes no arguments`,
		"statsu":         "there is no command 'top statsu': did you mean 'status'?",
		"other":          "there is no command 'top other': run 'top --help' for the list",
		"status --c":     "unknown flag: --c",
		"status --a":     "",
		"":               "",
	} {
		run := func(*cobra.Command, []string) error { return nil }
		top := &cobra.Command{Use: "top", Args: desk.NoArgs, RunE: run, SilenceErrors: true, SilenceUsage: true}
		status := &cobra.Command{Use: "status", Args: desk.NoArgs, RunE: run}
		status.Flags().Bool("a", false, "")
		status.Flags().Bool("b", false, "")
		status.MarkFlagsMutuallyExclusive("a", "b")
		top.SetFlagErrorFunc(desk.FlagError)
		top.AddCommand(status)
		top.SetOut(io.Discard)
		top.SetArgs(strings.Fields(line))
		err := top.Execute()
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", line, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || exit.Code(err) != exit.Misuse):
			t.Errorf("%q: %v, exit %d; want %q", line, err, exit.Code(err), want)
		}
	}
}
