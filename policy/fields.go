// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// fields reads the members of one object. Every member that is asked for is
// required, but for those of optional and has. Members nobody asked for are unknown.
type fields struct {
	report *report
	path   string
	node   *node // nil when the value was no object; then all reads are silent
	asked  []string
	lax    bool // unknown members are ignored (DSSE envelopes)
}

func object(n *node, path string, r *report) *fields {
	if n != nil && n.kind != kindObject {
		wrongType(n, path, "an object", r)
		n = nil
	}
	return &fields{report: r, path: path, node: n}
}

func wrongType(n *node, path, want string, r *report) {
	if n.kind == kindNull {
		r.add(CodeNull, path, want, "null", "state the value; nothing is skipped by leaving it out")
		return
	}
	r.add(CodeWrongType, path, want, n.describe(), "")
}

func (n *node) describe() string {
	switch n.kind {
	case kindString:
		return "the string " + quote(n.text)
	case kindNumber:
		return "the number " + quote(n.text)
	default:
		return n.kind.String()
	}
}

// get returns the member and its path, or nil after reporting it missing.
func (f *fields) get(key, want string) (*node, string) {
	f.asked = append(f.asked, key)
	path := memberPath(f.path, key)
	if f.node == nil {
		return nil, path
	}
	i := slices.Index(f.node.keys, key)
	if i < 0 {
		f.report.add(CodeMissingField, path, want, "no such field", "state the value; nothing is skipped by leaving it out")
		return nil, path
	}
	return f.node.values[i], path
}

// has reports whether an optional member is there.
func (f *fields) has(key string) bool {
	if f.node == nil || !slices.Contains(f.node.keys, key) {
		f.asked = append(f.asked, key)
		return false
	}
	return true
}

func (f *fields) text(key string) string {
	n, path := f.get(key, kindString.String())
	return text(n, path, f.report)
}

func text(n *node, path string, r *report) string {
	if n == nil {
		return ""
	}
	if n.kind != kindString {
		wrongType(n, path, kindString.String(), r)
		return ""
	}
	return n.text
}

// optional reads a text that may be missing, which is the same as empty.
func (f *fields) optional(key string) string {
	if !f.has(key) {
		return ""
	}
	return f.text(key)
}

func (f *fields) truth(key string) bool {
	n, path := f.get(key, kindBool.String())
	if n == nil {
		return false
	}
	if n.kind != kindBool {
		wrongType(n, path, kindBool.String(), f.report)
		return false
	}
	return n.truth
}

// optionalTruth reads a boolean that may be missing, which is the same as false.
func (f *fields) optionalTruth(key string) bool { return f.has(key) && f.truth(key) }

func (f *fields) number(key string, bits int) uint64 {
	n, path := f.get(key, wantNumber(bits))
	return number(n, path, bits, f.report)
}

func wantNumber(bits int) string {
	return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<(bits-1)-1+uint64(1)<<(bits-1))
}

// number accepts plain digits only: "1.0" and "1e0" are other spellings.
func number(n *node, path string, bits int, r *report) uint64 {
	if n == nil {
		return 0
	}
	if n.kind != kindNumber {
		wrongType(n, path, wantNumber(bits), r)
		return 0
	}
	v, err := strconv.ParseUint(n.text, 10, bits)
	if err != nil {
		r.add(CodeWrongType, path, wantNumber(bits), n.describe(), "")
		return 0
	}
	return v
}

// list calls each for every element.
func (f *fields) list(key string, each func(n *node, path string)) {
	n, path := f.get(key, kindArray.String())
	if n == nil {
		return
	}
	if n.kind != kindArray {
		wrongType(n, path, kindArray.String(), f.report)
		return
	}
	for i, v := range n.values {
		each(v, elementPath(path, i))
	}
}

func (f *fields) object(key string) *fields {
	n, path := f.get(key, kindObject.String())
	return object(n, path, f.report)
}

// done reports the members nobody asked for.
func (f *fields) done() {
	if f.node == nil || f.lax {
		return
	}
	for _, key := range f.node.keys {
		if slices.Contains(f.asked, key) {
			continue
		}
		remedy := "remove it, or use a c8s version that knows it"
		for _, known := range f.asked {
			if strings.EqualFold(known, key) {
				remedy = fmt.Sprintf("write %q", known)
			}
		}
		f.report.add(CodeUnknownField, memberPath(f.path, key), "one of "+strings.Join(f.asked, ", "), "the field "+quote(key), remedy)
	}
}

func texts[T ~string](f *fields, key string) []T {
	list := []T{}
	f.list(key, func(n *node, path string) { list = append(list, T(text(n, path, f.report))) })
	return list
}

// optionalTexts reads a list that may be missing but not empty, so that
// nothing has two spellings.
func optionalTexts(f *fields, key string) []string {
	if !f.has(key) {
		return nil
	}
	list := texts[string](f, key)
	f.filled(key, len(list))
	return list
}

func optionalNumbers[T uint16 | uint32](f *fields, key string, bits int) []T {
	if !f.has(key) {
		return nil
	}
	var list []T
	f.list(key, func(n *node, path string) { list = append(list, T(number(n, path, bits, f.report))) })
	f.filled(key, len(list))
	return list
}

func optionalList[T any](f *fields, key string, into *[]T, read func(*fields) T) {
	if !f.has(key) {
		return
	}
	f.list(key, func(n *node, path string) { *into = append(*into, read(object(n, path, f.report))) })
	f.filled(key, len(*into))
}

// filled refuses an optional list that is there and empty.
func (f *fields) filled(key string, n int) {
	if i := slices.Index(f.node.keys, key); i >= 0 && f.node.values[i].kind == kindArray {
		needed(n, memberPath(f.path, key), "at least one element", "leave the field out", f.report)
	}
}
