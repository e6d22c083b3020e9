// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [CHECK]",
		Short: "Explain a check of a verdict",
		Long: `Says what a check looks at, what passes, which document asks for it and what it
protects from. Without an argument it lists all checks.`,
		Example: `  c8s attest explain
  c8s attest explain endorsement-tcb`,
		Args: desk.UsageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var ids []string
			for _, e := range appraise.Explain() {
				ids = append(ids, string(e.ID))
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	var output desk.Output
	output.Register(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		list := appraise.Explain()
		if len(args) == 1 {
			e, ok := find(list, args[0])
			if !ok {
				return exit.Usage(fmt.Errorf("there is no check %q: run 'c8s attest explain' for the list", args[0]))
			}
			list = []appraise.Explanation{e}
		}
		return output.Write(c, list, func(w io.Writer) error { return print(w, list, len(args) == 1) })
	}
	return c
}

func find(list []appraise.Explanation, id string) (appraise.Explanation, bool) {
	for _, e := range list {
		if string(e.ID) == id {
			return e, true
		}
	}
	return appraise.Explanation{}, false
}

func print(out io.Writer, list []appraise.Explanation, whole bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, e := range list {
		tee := e.TEE
		if tee == "" {
			tee = "all"
		}
		if !whole {
			fmt.Fprintf(w, "%s\t%s\t%s\n", e.ID, tee, e.Expected)
			continue
		}
		fmt.Fprintf(w, "check\t%s\nTEE\t%s\npasses\t%s\nsource\t%s\nprotects from\t%s\n", e.ID, tee, e.Expected, strings.ReplaceAll(e.Source, "; ", "\n\t"), e.Meaning)
	}
	return w.Flush()
}
