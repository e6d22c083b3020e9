// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// keptOutput is how much of one test's output is kept for when it fails.
const keptOutput = 400 // lines

var verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)$`)

// mark begins the lines of package testing in the mode "test2json", in which
// it reports subtests as they end and not after their parents.
const mark = "\x16"

// Translate turns the output of a test binary that runs with
// -test.v=test2json into the protocol: verdicts of tests and of the subtests that did not pass, with what
// a failed or skipped test said. It reports whether the binary said PASS at
// its end and how many tests spoke.
func Translate(suite string, in io.Reader, out io.Writer) (passed bool, tests int) {
	t := translation{suite: suite, out: out}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	for lines.Scan() {
		t.line(lines.Text())
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(out, "| reading the output:", err)
		_, _ = io.Copy(io.Discard, in) // or the test would block
		t.passed = false
	}
	if !t.passed {
		t.spill() // a panic or a time limit belongs to no verdict
	}
	return t.passed, t.tests
}

type translation struct {
	suite  string
	out    io.Writer
	kept   []string
	passed bool
	tests  int
}

func (t *translation) line(s string) {
	s = strings.TrimPrefix(s, mark)
	m := verdict.FindStringSubmatch(s)
	switch {
	case m != nil:
		t.verdict(m[1], m[2], m[3])
	case s == "PASS":
		t.passed = true
	case strings.HasPrefix(s, "=== "):
	default:
		t.kept = append(t.kept, s)
		if len(t.kept) > keptOutput {
			t.kept = t.kept[1:]
		}
	}
}

// verdict reports one. The output so far is the test's and its subtests':
// none runs in parallel with another.
func (t *translation) verdict(verb, name, took string) {
	top := !strings.Contains(name, "/")
	seconds, _ := strconv.ParseFloat(took, 64) // the pattern allows "1.2.3", which Go does not print
	l := Line{Verb: verb, Suite: t.suite, Name: name, Took: time.Duration(seconds * float64(time.Second))}
	if verb == Skip && len(t.kept) > 0 {
		l.Text = reason(t.kept[len(t.kept)-1])
	}
	if verb == Fail {
		t.spill()
	}
	if top || verb != Pass {
		fmt.Fprintln(t.out, l)
	}
	if top {
		t.tests++
		t.kept = nil
	}
}

func (t *translation) spill() {
	for _, s := range t.kept {
		fmt.Fprintln(t.out, "|", s)
	}
	t.kept = nil
}

var position = regexp.MustCompile(`^\s*\S+\.go:[0-9]+: `)

// reason is what a test said without where it said it.
func reason(s string) string { return strings.TrimSpace(position.ReplaceAllString(s, "")) }
