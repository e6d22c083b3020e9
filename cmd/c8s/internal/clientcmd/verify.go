// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

type verifyCommand struct {
	trust  trust
	save   string
	force  bool
	output desk.Output
}

func newVerify() *cobra.Command {
	var v verifyCommand
	c := &cobra.Command{
		Use:   "verify URL (--operators FILE | --cds-policy FILE)",
		Short: "Check step by step what the host of a URL proves",
		Long: `Connects to an https host, believing nothing, and says of each step from the trust
anchor to the TLS key of this very connection whether it is proven, open (nothing is
wrong, but it is not shown) or refuted. Each step rests on those before. Nothing but
public documents is asked for.

` + trustHelp + `

--save keeps all documents that were read, for others to check with other programs.

Exit codes: 0 all proven, 1 something is refuted or the host cannot be reached, 2
wrong usage, 3 partly proven: what is open is listed.`,
		Example: `  c8s verify https://bank.example --operators operators.json
  c8s verify bank.example --operators operators.json --nonce -o json
  c8s verify bank.example --cds-policy cds-policy.json --max-age 2m --save proof/`,
		Args:              desk.UsageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              withEnvironment(func(c *cobra.Command, args []string) error { return v.run(c, args[0]) }),
	}
	v.trust.register(c)
	c.Flags().StringVar(&v.save, "save", "", "folder for all documents that were read")
	c.Flags().BoolVar(&v.force, "force", false, "write into the folder of --save also if it exists")
	_ = c.MarkFlagDirname("save")
	v.output.Register(c)
	c.SetFlagErrorFunc(desk.FlagError)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, address string) error {
	if _, err := provable(address); err != nil {
		return err
	}
	cl, err := v.trust.client(c, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	if v.save != "" {
		if err := desk.CheckFree(v.force, v.save); err != nil {
			return err
		}
	}
	r, err := cl.Verify(c.Context(), address)
	if err != nil {
		return err
	}
	if v.save != "" {
		if err := save(v.save, r); err != nil {
			return err
		}
	}
	return errors.Join(v.output.Write(c, r, func(w io.Writer) error { return printReport(w, r) }), verdict(r))
}

// verdict has the exit code of the report.
func verdict(r *client.Report) error {
	switch r.Overall {
	case client.Proven:
		return nil
	case client.Partly:
		return exit.Partly(fmt.Errorf("partly proven: nothing speaks against %s, and it does not prove: %s", r.URL, names(r.Open())))
	}
	return fmt.Errorf("refuted: %s: do not use %s", names(r.Refuted()), r.URL)
}

func names(steps []proof.Step) string {
	list := make([]string, len(steps))
	for i, s := range steps {
		list[i] = s.Name
	}
	return strings.Join(list, ", ")
}

// printReport shows the steps, and of those not proven what was expected.
func printReport(out io.Writer, r *client.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range r.Steps {
		line := func(a, b, text string) { _, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", a, b, clean(text)) } // Flush has the error
		if s.State == proof.Proven {
			line(string(s.State), s.Name, s.Actual)
			continue
		}
		line(strings.ToUpper(string(s.State)), s.Name, s.Actual)
		line("", "", "expected: "+s.Expected)
		if s.Remedy != "" {
			line("", "", s.Remedy)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	word := map[client.State]string{client.Proven: "proven", client.Partly: "PARTLY PROVEN", client.Refuted: "REFUTED"}[r.Overall]
	_, err := fmt.Fprintf(out, "\n%s, for %s", word, clean(r.URL))
	if err == nil && r.Overall != client.Refuted && !r.Until.IsZero() {
		_, err = fmt.Fprintf(out, " until %s", r.Until.UTC().Format(time.RFC3339))
	}
	if err == nil {
		_, err = fmt.Fprintln(out)
	}
	return err
}

// clean takes out what is not seen as written: parts of the texts come from a
// host that is not trusted.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
