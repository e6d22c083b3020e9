// SPDX-License-Identifier: Apache-2.0

// Package console is what a guest writes to its second serial port and the
// driver reads: one result a line. Lines that begin otherwise are what the
// tests themselves said.
//
// Invariant: a run is only complete with its end marker, so a guest that dies
// silently has failed.
package console

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Prefix begins every line of the protocol.
const Prefix = "KERNEL "

// Verbs of a Line, the word behind the prefix.
const (
	Boot     = "BOOT"     // release of the kernel
	Info     = "INFO"     // name, text: something to know of the kernel
	Verified = "VERIFIED" // program, instructions that the verifier looked at
	Pass     = "PASS"     // suite, test, seconds
	Fail     = "FAIL"     // suite, test, seconds
	Skip     = "SKIP"     // suite, test, seconds, reason
	End      = "END"      // nothing comes behind it
)

// Line is one line of the protocol.
type Line struct {
	Verb, Suite, Name string
	Took              time.Duration
	Text              string
}

// String is the line as it is sent.
func (l Line) String() string {
	switch l.Verb {
	case Pass, Fail, Skip:
		return strings.TrimSpace(fmt.Sprintf("%s%s %s %s %.2f %s", Prefix, l.Verb, l.Suite, l.Name, l.Took.Seconds(), oneLine(l.Text)))
	case Info, Verified:
		return strings.TrimSpace(Prefix + l.Verb + " " + l.Name + " " + oneLine(l.Text))
	}
	return strings.TrimSpace(Prefix + l.Verb + " " + oneLine(l.Text))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func isWord(s string) bool { return s != "" && !strings.ContainsFunc(s, unicode.IsSpace) }

// Parse reads a line; ok is false for what is not of the protocol.
func Parse(s string) (l Line, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimRight(s, "\r\n"), Prefix)
	if !ok {
		return l, false
	}
	l.Verb, rest, _ = strings.Cut(rest, " ")
	switch l.Verb {
	case Boot, End:
		l.Text = rest
	case Info, Verified:
		l.Name, l.Text, _ = strings.Cut(rest, " ")
		ok = isWord(l.Name)
	case Pass, Fail, Skip:
		words := strings.SplitN(rest, " ", 4)
		if len(words) < 3 {
			return Line{}, false
		}
		seconds, err := strconv.ParseFloat(words[2], 64)
		if err != nil || seconds < 0 || seconds > 1e6 {
			return Line{}, false
		}
		l.Suite, l.Name, l.Took = words[0], words[1], time.Duration(seconds*float64(time.Second))
		if len(words) == 4 {
			l.Text = words[3]
		}
		ok = isWord(l.Suite) && isWord(l.Name)
	default:
		ok = false
	}
	if !ok {
		return Line{}, false
	}
	return l, true
}
