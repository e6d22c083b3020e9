// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxDepth    = 16  // deeper than any document of ours
	maxProblems = 100 // reported; the rest is counted
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// node is one JSON value. encoding/json into structs is not used because it
// accepts duplicate keys and other spellings of a key's case.
type node struct {
	kind   kind
	truth  bool
	text   string // string, or the digits of a number
	keys   []string
	values []*node
}

// report collects problems of one document.
type report struct {
	problems []Problem
	more     int
}

func (r *report) add(code Code, path, expected, actual, remedy string) {
	if len(r.problems) >= maxProblems {
		r.more++
		return
	}
	r.problems = append(r.problems, Problem{Code: code, Path: path, Expected: expected, Actual: actual, Remedy: remedy})
}

func (r *report) err(doing string) error {
	if len(r.problems) == 0 {
		return nil
	}
	return &InvalidError{Doing: doing, Problems: r.problems, More: r.more}
}

// parseTree reads exactly one JSON value. It returns nil when the text is not
// JSON at all; problems that leave a readable tree are only reported.
func parseTree(text []byte, limit int, r *report) *node {
	if len(text) > limit {
		r.add(CodeTooLarge, "$", fmt.Sprintf("at most %d bytes", limit), fmt.Sprintf("%d bytes", len(text)), "split or shorten the document")
		return nil
	}
	if !utf8.Valid(text) {
		r.add(CodeInvalidUTF8, "$", "UTF-8 text", "bytes that are not UTF-8", "save the file as UTF-8")
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	t := treeParser{dec: dec, report: r}
	root, err := t.value(1)
	if err != nil {
		if !errors.Is(err, errReported) {
			r.add(CodeSyntax, "$", "one JSON value", fmt.Sprintf("%s at byte %d", syntaxText(err), dec.InputOffset()), "")
		}
		return nil
	}
	if rest := bytes.TrimLeft(text[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		r.add(CodeTrailing, "$", "nothing after the JSON value", quote(string(rest[:min(len(rest), 16)])), "remove what follows the closing brace")
		return nil
	}
	// The token reader is laxer about commas than the grammar.
	if !json.Valid(text) {
		r.add(CodeSyntax, "$", "one JSON value", "text that breaks the JSON grammar", "")
		return nil
	}
	return root
}

func syntaxText(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the end of the text"
	}
	return err.Error()
}

// errReported says that the reason already is in the report.
var errReported = errors.New("reported")

type treeParser struct {
	dec    *json.Decoder
	report *report
	at     []step // rendered only when there is something to report
}

// step is one part of a path: a key, or an index when it is not negative.
type step struct {
	key   string
	index int
}

func (t *treeParser) path() string {
	path := "$"
	for _, s := range t.at {
		if s.index >= 0 {
			path = elementPath(path, s.index)
		} else {
			path = memberPath(path, s.key)
		}
	}
	return path
}

func (t *treeParser) child(s step, depth int) (*node, error) {
	t.at = append(t.at, s)
	v, err := t.value(depth + 1)
	t.at = t.at[:len(t.at)-1]
	return v, err
}

func (t *treeParser) value(depth int) (*node, error) {
	tok, err := t.dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case nil:
		return &node{kind: kindNull}, nil
	case bool:
		return &node{kind: kindBool, truth: v}, nil
	case json.Number:
		return &node{kind: kindNumber, text: v.String()}, nil
	case string:
		return &node{kind: kindString, text: v}, t.text(v)
	case json.Delim:
		if depth > maxDepth {
			t.report.add(CodeTooDeep, t.path(), fmt.Sprintf("at most %d levels", maxDepth), "more", "")
			return nil, errReported
		}
		if v == '{' {
			return t.object(depth)
		}
		if v == '[' {
			return t.array(depth)
		}
	}
	return nil, fmt.Errorf("unexpected %v", tok)
}

// text refuses U+FFFD, which is what the decoder makes of an escaped half
// surrogate pair: two different documents would read the same.
func (t *treeParser) text(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		t.report.add(CodeInvalidUTF8, t.path(), "a string of whole Unicode characters", quote(s), "")
		return errReported
	}
	return nil
}

func (t *treeParser) object(depth int) (*node, error) {
	n := &node{kind: kindObject}
	seen := make(map[string]struct{})
	for t.dec.More() {
		tok, err := t.dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("unexpected %v instead of a key", tok)
		}
		if err := t.text(key); err != nil {
			return nil, err
		}
		if _, dup := seen[key]; dup {
			t.report.add(CodeDuplicateKey, memberPath(t.path(), key), "each key once", "the key again", "remove one of the two")
		}
		seen[key] = struct{}{}
		v, err := t.child(step{key: key, index: -1}, depth)
		if err != nil {
			return nil, err
		}
		n.keys, n.values = append(n.keys, key), append(n.values, v)
	}
	_, err := t.dec.Token()
	return n, err
}

func (t *treeParser) array(depth int) (*node, error) {
	n := &node{kind: kindArray}
	for t.dec.More() {
		v, err := t.child(step{index: len(n.values)}, depth)
		if err != nil {
			return nil, err
		}
		n.values = append(n.values, v)
	}
	_, err := t.dec.Token()
	return n, err
}

func memberPath(path, key string) string {
	if isPlainKey(key) {
		return path + "." + key
	}
	return path + "[" + quote(key) + "]"
}

func elementPath(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func isPlainKey(key string) bool {
	if key == "" || len(key) > 64 {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
