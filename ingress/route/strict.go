// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const maxDepth = 16

// node is one JSON value. encoding/json into structs is not used because it
// accepts doubled keys and other spellings of a key's case.
type node struct {
	value any // nil, bool, json.Number, string, []*node or members
}

type members struct {
	keys   []string
	values []*node
}

func (n *node) kind() string {
	switch n.value.(type) {
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []*node:
		return "an array"
	case members:
		return "an object"
	}
	return "null"
}

// readStrict fills the struct that into points to with exactly one JSON object.
func readStrict(text []byte, into any, r *report) {
	switch {
	case len(text) > MaxFile:
		r.add("$", fmt.Sprintf("at most %d bytes", MaxFile), strconv.Itoa(len(text)))
		return
	case !utf8.Valid(text):
		r.add("$", "UTF-8", "other bytes")
		return
	case !json.Valid(text): // the token reader below is laxer about commas
		r.add("$", "one JSON value", syntaxError(text))
		return
	}
	p := parser{dec: json.NewDecoder(bytes.NewReader(text)), report: r}
	p.dec.UseNumber()
	root, err := p.parse("$", 1)
	if err != nil {
		r.add("$", "one JSON value", err.Error())
		return
	}
	fill(root, reflect.ValueOf(into).Elem(), "$", r)
}

func syntaxError(text []byte) string {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	err := dec.Decode(&v)
	if err == nil {
		return fmt.Sprintf("something after it, at byte %d", dec.InputOffset())
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "the end of the text"
	}
	return err.Error()
}

type parser struct {
	dec    *json.Decoder
	report *report
}

func (p *parser) parse(path string, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels at %s", maxDepth, path)
	}
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []*node{}
		for p.dec.More() {
			v, err := p.parse(element(path, len(list)), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = p.dec.Token()
		return &node{list}, err
	case json.Delim('{'):
		return p.object(path, depth)
	}
	return &node{tok}, nil
}

func (p *parser) object(path string, depth int) (*node, error) {
	var m members
	seen := map[string]bool{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		key := tok.(string) // json.Valid has seen to it
		at := path + "." + key
		if !isPlain(key) {
			at = path + "[" + quote(key) + "]"
		}
		once(key, at, seen, p.report)
		v, err := p.parse(at, depth+1)
		if err != nil {
			return nil, err
		}
		m.keys, m.values = append(m.keys, key), append(m.values, v)
	}
	_, err := p.dec.Token()
	return &node{m}, err
}

func isPlain(key string) bool {
	return len(key) <= 64 && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// fill puts a value where it belongs, and reports what does not fit.
func fill(n *node, into reflect.Value, path string, r *report) {
	switch into.Interface().(type) {
	case time.Duration:
		fillDuration(n, into, path, r)
		return
	case Port:
		fillPort(n, into, path, r)
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		fill(n, into.Elem(), path, r)
	case reflect.Struct:
		fillStruct(n, into, path, r)
	case reflect.Slice:
		list, ok := n.value.([]*node)
		if !ok {
			r.add(path, "an array", n.kind())
			return
		}
		into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
		for i, v := range list {
			fill(v, into.Index(i), element(path, i), r)
		}
	case reflect.String:
		s, ok := n.value.(string)
		if !ok {
			r.add(path, "a string", n.kind())
			return
		}
		into.SetString(s)
	default:
		fillNumber(n, into, path, r)
	}
}

func fillNumber(n *node, into reflect.Value, path string, r *report) {
	text, ok := n.value.(json.Number)
	if !ok {
		r.add(path, "a number", n.kind())
		return
	}
	if into.CanUint() {
		v, err := strconv.ParseUint(string(text), 10, into.Type().Bits())
		if err != nil {
			r.add(path, fmt.Sprintf("a whole number of %d bits", into.Type().Bits()), quote(string(text)))
		}
		into.SetUint(v)
		return
	}
	v, err := strconv.ParseInt(string(text), 10, into.Type().Bits())
	if err != nil || v < 0 {
		r.add(path, "a whole number, 0 or more", quote(string(text)))
	}
	into.SetInt(v)
}

func fillDuration(n *node, into reflect.Value, path string, r *report) {
	s, _ := n.value.(string)
	d, err := time.ParseDuration(s)
	if err != nil {
		r.add(path, `a duration, "500ms" or "10s"`, n.show())
	}
	into.SetInt(int64(d))
}

func fillPort(n *node, into reflect.Value, path string, r *report) {
	switch v := n.value.(type) {
	case string:
		into.Set(reflect.ValueOf(Port{Name: v}))
	case json.Number:
		number, err := strconv.ParseUint(string(v), 10, 16)
		if err != nil {
			r.add(path, "1 to 65535, or a name", quote(string(v)))
		}
		into.Set(reflect.ValueOf(Port{Number: uint16(number)}))
	default:
		r.add(path, "a port's number or name", n.kind())
	}
}

func (n *node) show() string {
	if s, ok := n.value.(string); ok {
		return quote(s)
	}
	return n.kind()
}

func fillStruct(n *node, into reflect.Value, path string, r *report) {
	m, ok := n.value.(members)
	if !ok {
		r.add(path, "an object", n.kind())
		return
	}
	fields := map[string]reflect.Value{}
	required := map[string]bool{}
	jsonFields(into, fields, required)
	for i, key := range m.keys {
		f, known := fields[key]
		if !known {
			r.add(path, "only keys of this object", quote(key))
			continue
		}
		delete(required, key)
		fill(m.values[i], f, path+"."+key, r)
	}
	for _, key := range slices.Sorted(maps.Keys(required)) {
		r.add(path+"."+key, "a value", "none")
	}
}

// jsonFields finds a struct's fields by their names in JSON. Those that are not
// left out when empty are required.
func jsonFields(v reflect.Value, fields map[string]reflect.Value, required map[string]bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			jsonFields(v.Field(i), fields, required)
		case name != "" && name != "-":
			fields[name] = v.Field(i)
			if options == "" {
				required[name] = true
			}
		}
	}
}
