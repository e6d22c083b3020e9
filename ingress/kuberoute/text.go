// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMessage is the longest message of a condition, in bytes. The API takes
// 32 KiB, people take less.
const maxMessage = 1024

// short shows text of an object, shortened.
func short(s string) string { return strconv.Quote(cut(s, 80)) }

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// camel spells a code as reasons of conditions are spelled.
func camel(code string) string {
	var b strings.Builder
	up := true
	for _, r := range cut(code, 80) {
		switch {
		case r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r):
			up = true
		case b.Len() == 0 && unicode.IsDigit(r):
		case up:
			b.WriteRune(unicode.ToUpper(r))
			up = false
		default:
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "Refused"
	}
	return b.String()
}

// messages joins what was found, shortened as a whole.
func messages(all []Finding) string {
	var b strings.Builder
	for i, f := range all {
		if b.Len() > maxMessage {
			b.WriteString("; and " + strconv.Itoa(len(all)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Message)
	}
	return cut(b.String(), 2*maxMessage)
}
