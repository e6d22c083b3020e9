// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with routes.
type Problem struct {
	Path     string `json:"path"` // "$.routes[2].hosts[0]"
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: expected %s, got %s", p.Path, p.Expected, p.Actual)
}

// InvalidError says everything that is wrong with routes.
type InvalidError struct {
	Problems []Problem
	More     int // beyond those listed
}

const maxProblems = 100

func (e *InvalidError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "checking the routes: %d problems", len(e.Problems)+e.More)
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", e.More)
	}
	return b.String()
}

type report struct {
	problems []Problem
	more     int
}

func (r *report) add(path, expected, actual string) {
	if len(r.problems) >= maxProblems {
		r.more++
		return
	}
	r.problems = append(r.problems, Problem{Path: path, Expected: expected, Actual: actual})
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return &InvalidError{Problems: r.problems, More: r.more}
}

// quote shows text from outside, shortened.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "…"
	}
	return strconv.Quote(s)
}
