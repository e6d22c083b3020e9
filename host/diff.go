// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

const diffContext = 3

// diff shows one change as a unified diff with one hunk: from the first line
// that differs to the last. Edits here are short, so a smarter one says no more.
func diff(path string, from, to *content) string {
	a, b := linesOf(from), linesOf(to)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", diffName(path, from), diffName(path, to))
	if from != nil && to != nil && (from.mode != to.mode || from.uid != to.uid || from.gid != to.gid) {
		fmt.Fprintf(&out, "mode %o of %d:%d becomes %o of %d:%d\n", from.mode, from.uid, from.gid, to.mode, to.uid, to.gid)
	}
	if isProgram(from) || isProgram(to) {
		fmt.Fprintf(&out, "program: %s becomes %s\n", describe(from), describe(to))
		return out.String()
	}
	head := 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	if head == len(a) && head == len(b) {
		return out.String()
	}
	start := max(0, head-diffContext)
	after := min(tail, diffContext)
	fmt.Fprintf(&out, "@@ -%s +%s @@\n", hunk(start, len(a)-tail+after), hunk(start, len(b)-tail+after))
	put := func(sign string, lines []string) {
		for _, l := range lines {
			out.WriteString(sign + l)
			if !strings.HasSuffix(l, "\n") {
				out.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	put(" ", a[start:head])
	put("-", a[head:len(a)-tail])
	put("+", b[head:len(b)-tail])
	put(" ", a[len(a)-tail:len(a)-tail+after])
	return out.String()
}

func hunk(start, end int) string {
	if end == start {
		return fmt.Sprintf("%d,0", start)
	}
	return fmt.Sprintf("%d,%d", start+1, end-start)
}

func diffName(path string, c *content) string {
	if c == nil {
		return "/dev/null"
	}
	return path
}

func linesOf(c *content) []string {
	if c == nil || len(c.data) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(c.data), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	return lines
}

func isProgram(c *content) bool {
	return c != nil && (bytes.IndexByte(c.data, 0) >= 0 || !utf8.Valid(c.data))
}

func describe(c *content) string {
	if c == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d bytes, %s", len(c.data), c.digest())
}
