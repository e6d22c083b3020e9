// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/c8s-dev/c8s/policy"
)

// Status is the outcome of one check. There is no "skipped".
type Status string

// The outcomes. The zero value counts as a failure.
const (
	Pass          Status = "pass"
	Fail          Status = "fail"
	NotApplicable Status = "not-applicable"
)

// CodeAccepted is the code of a verdict that is OK.
const CodeAccepted = "accepted"

// Check is one thing that was looked at.
type Check struct {
	ID       string `json:"id"` // stable, kebab-case
	Status   Status `json:"status"`
	Code     string `json:"code,omitempty"` // why it failed; stable; may be finer than ID
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
	Source   string `json:"source"` // document and section that asks for the check
	Remedy   string `json:"remedy,omitempty"`
}

// Verdict is the result of an appraisal: every check that was made, and the
// facts the evidence proves. The facts mean nothing unless OK is true. The zero
// value is a refusal.
type Verdict struct {
	OK        bool   `json:"ok"`
	Code      string `json:"code"`                // CodeAccepted, or that of the first failed check
	Substrate string `json:"substrate,omitempty"` // the manifest's entry that accepted, or came nearest
	policy.SubstrateFacts
	Checks []Check `json:"checks"`
}

// Conclude sets OK and Code from the checks. No checks at all is a refusal.
func (v *Verdict) Conclude() {
	v.OK, v.Code = false, "not-appraised"
	if c := v.firstFailed(); c != nil {
		if v.Code = c.Code; v.Code == "" {
			v.Code = c.ID
		}
		return
	}
	if len(v.Checks) > 0 {
		v.OK, v.Code = true, CodeAccepted
	}
}

func (v *Verdict) firstFailed() *Check {
	for i := range v.Checks {
		if s := v.Checks[i].Status; s != Pass && s != NotApplicable {
			return &v.Checks[i]
		}
	}
	return nil
}

// Err returns nil when the evidence was accepted and a *RefusedError otherwise.
// A nil verdict is a refusal.
func (v *Verdict) Err() error {
	if v == nil {
		return &RefusedError{Code: "not-appraised"}
	}
	failed := v.firstFailed()
	if v.OK && failed == nil && len(v.Checks) > 0 {
		return nil
	}
	e := &RefusedError{Code: v.Code}
	if failed != nil {
		e.Check = *failed
	}
	if e.Code == "" || e.Code == CodeAccepted {
		e.Code = "not-appraised"
	}
	return e
}

// String renders the verdict as a table for people.
func (v *Verdict) String() string {
	if v == nil {
		return "REFUSED (not-appraised)\n"
	}
	var b strings.Builder
	word := "REFUSED"
	if v.OK {
		word = "ACCEPTED"
	}
	fmt.Fprintf(&b, "%s (%s)", word, cell(v.Code))
	if v.Substrate != "" {
		fmt.Fprintf(&b, " by substrate %q", v.Substrate)
	}
	if v.Simulated {
		b.WriteString(" SIMULATED: proves nothing")
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tSTATUS\tEXPECTED\tACTUAL\tSOURCE")
	for _, c := range v.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", cell(c.ID), cell(string(c.Status)), cell(c.Expected), cell(c.Actual), cell(c.Source))
	}
	_ = w.Flush() // a strings.Builder does not fail
	for _, c := range v.Checks {
		if c.Status == Fail && c.Remedy != "" {
			fmt.Fprintf(&b, "%s: %s\n", cell(c.ID), shown(c.Remedy))
		}
	}
	return b.String()
}

// clean takes out what is not seen as written, such as line ends, terminal
// commands and changes of the writing direction: parts of the texts come from
// strangers.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// cell is clean and short enough for a table.
func cell(s string) string { return cut(s, 64) }

// shown is clean and short enough for an error; chip ids and registers fit.
func shown(s string) string { return cut(s, 400) }

// cut is clean and at most so many characters long.
func cut(s string, limit int) string {
	if len(s) > limit*utf8.UTFMax { // more cannot be shown: spare it the work
		s = s[:limit*utf8.UTFMax+1]
	}
	s = clean(s)
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

// RefusedError says why evidence was refused.
type RefusedError struct {
	Code  string // stable, kebab-case
	Check Check  // the first that failed
}

func (e *RefusedError) Error() string {
	s := "appraising evidence: refused with " + shown(e.Code)
	if e.Check.ID != "" {
		s += fmt.Sprintf(": check %s: expected %s, got %s", shown(e.Check.ID), shown(e.Check.Expected), shown(e.Check.Actual))
	}
	if e.Check.Remedy != "" {
		s += ": " + shown(e.Check.Remedy)
	}
	return s
}
