// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

type lintCommand struct {
	strict bool
	at     string
	output desk.Output
}

func newLint() *cobra.Command {
	var l lintCommand
	c := &cobra.Command{
		Use:   "lint FILE",
		Short: "Find what a manifest says that may not be meant",
		Long: `Finds, in a manifest that may be signed or not, what nodes would refuse (an error),
and what they would accept although it may not be meant: lists that admit more
than they seem to, missing floors, values that have expired or soon will, tags
that move, rules that allow nothing. FILE may be "-".

Exit codes: 0 no errors (with --strict: no warnings either), 1 some, 2 wrong usage.`,
		Example: `  c8s manifest lint manifest.json
  c8s manifest lint manifest.signed.json --strict -o json

  # what will have expired next spring
  c8s manifest lint manifest.signed.json --time 2027-04-01T00:00:00Z`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return l.run(c, args[0]) },
	}
	c.Flags().BoolVar(&l.strict, "strict", false, "fail for warnings too")
	c.Flags().StringVar(&l.at, "time", "", "time to judge by, RFC 3339 (default: now)")
	l.output.Register(c)
	return c
}

func (l *lintCommand) run(c *cobra.Command, path string) error {
	now := time.Now()
	if l.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, l.at); err != nil {
			return exit.Usage(fmt.Errorf("--time must be like 2027-04-01T00:00:00Z, not %q", l.at))
		}
	}
	findings, err := lint(c, path, now)
	if err != nil {
		return err
	}
	findings = append([]policy.Finding{}, findings...)
	err = l.output.Write(c, findings, func(w io.Writer) error { return printLint(w, findings) })
	return errors.Join(err, l.verdict(path, findings))
}

// lint returns what is wrong with the document as findings too, so that one
// list has everything to do before signing.
func lint(c *cobra.Command, path string, now time.Time) ([]policy.Finding, error) {
	d, err := desk.Manifests().Read(c, path)
	var invalid *policy.InvalidError
	if errors.As(err, &invalid) {
		return problemFindings(invalid), nil
	}
	if err != nil {
		return nil, err
	}
	return policy.Lint(d.Content, now), nil
}

func problemFindings(invalid *policy.InvalidError) []policy.Finding {
	var findings []policy.Finding
	for _, p := range invalid.Problems {
		findings = append(findings, policy.Finding{
			Code: p.Code, Path: p.Path, Severity: policy.SeverityError,
			Message: "expected " + p.Expected + ", got " + p.Actual, Remedy: p.Remedy,
		})
	}
	if invalid.More > 0 {
		findings = append(findings, policy.Finding{Path: "$", Severity: policy.SeverityError, Message: fmt.Sprintf("and %d problems more", invalid.More)})
	}
	return findings
}

func printLint(w io.Writer, findings []policy.Finding) error {
	if len(findings) == 0 {
		_, err := fmt.Fprintln(w, "nothing found")
		return err
	}
	return printFindings(w, findings)
}

func (l *lintCommand) verdict(path string, findings []policy.Finding) error {
	failing := []policy.Severity{policy.SeverityError}
	if l.strict {
		failing = append(failing, policy.SeverityWarning)
	}
	n := 0
	for _, f := range findings {
		if slices.Contains(failing, f.Severity) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d findings must be dealt with", path, n, len(findings))
}
