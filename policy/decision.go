// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a stable, kebab-case name for an outcome: metrics, logs and tests
// may depend on it. docs/policy.md lists all of them.
type Code string

// Decision is the answer to one question and the reason for it. The zero
// value is a refusal.
type Decision struct {
	Allowed  bool   `json:"allowed"`
	Code     Code   `json:"code"`
	Rule     string `json:"rule,omitempty"`     // which part of the manifest decided
	Expected string `json:"expected,omitempty"` // what that part wants
	Actual   string `json:"actual,omitempty"`   // what was there
	Remedy   string `json:"remedy,omitempty"`   // what the operator can do
}

// Error makes a refusal usable as an error. Use Err to get nil when allowed.
func (d Decision) Error() string {
	if d.Allowed {
		return "allowed by " + d.Rule
	}
	code := d.Code
	if code == "" {
		code = CodeUndecided
	}
	var b strings.Builder
	fmt.Fprintf(&b, "refused (%s)", code)
	describe(&b, d.Rule, d.Expected, d.Actual, d.Remedy)
	return b.String()
}

// Err returns nil when allowed and the decision itself otherwise.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return d
}

func allow(rule string) Decision {
	return Decision{Allowed: true, Code: CodeAllowed, Rule: rule}
}

func describe(b *strings.Builder, where, expected, actual, remedy string) {
	if where != "" {
		b.WriteString(" by " + where)
	}
	if expected != "" {
		b.WriteString(": expected " + expected)
	}
	if actual != "" {
		b.WriteString(", got " + actual)
	}
	if remedy != "" {
		b.WriteString("; " + remedy)
	}
}

// Problem is one thing wrong with a document.
type Problem struct {
	Code     Code   `json:"code"`
	Path     string `json:"path"` // JSON path, "$" is the document
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
	Remedy   string `json:"remedy,omitempty"`
}

func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s: expected %s, got %s", p.Path, p.Code, p.Expected, p.Actual)
	if p.Remedy != "" {
		s += "; " + p.Remedy
	}
	return s
}

// InvalidError lists everything wrong with a document, in document order.
type InvalidError struct {
	Doing    string // "parsing the manifest"
	Problems []Problem
	More     int // problems beyond the reported ones
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	b.WriteString(e.Doing)
	if len(e.Problems) == 1 && e.More == 0 {
		b.WriteString(": " + e.Problems[0].String())
		return b.String()
	}
	fmt.Fprintf(&b, ": %d problems", len(e.Problems)+e.More)
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", e.More)
	}
	return b.String()
}

// CodeOf returns the code of an error of this package: that of a decision, or
// of the first problem of a document. Other errors have none.
func CodeOf(err error) Code {
	if d := (Decision{}); errors.As(err, &d) {
		if d.Code == "" {
			return CodeUndecided
		}
		return d.Code
	}
	if inv := (*InvalidError)(nil); errors.As(err, &inv) && len(inv.Problems) > 0 {
		return inv.Problems[0].Code
	}
	return ""
}

// maxActual bounds how much of an untrusted value a message repeats, maxShown
// how much of a printable one: a chip id has 128 digits, registers a name too.
const (
	maxActual = 96
	maxShown  = 256
)

// quote makes an untrusted value safe to print: escaped and short.
func quote(s string) string {
	if len(s) > maxActual {
		return fmt.Sprintf("%q… (%d bytes)", s[:maxActual], len(s))
	}
	return fmt.Sprintf("%q", s)
}
