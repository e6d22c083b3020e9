// SPDX-License-Identifier: Apache-2.0

// Package onejson refuses JSON that two readers could understand differently.
// Its invariant: what it passes has one meaning.
package onejson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const maxDepth = 12

// Check refuses documents that are not one JSON value, say something twice (in
// any case of letters, since readers differ in which one they take), or are
// deeper than 12 levels.
func Check(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	var stack []map[string]bool // nil for arrays
	key, values := false, 0     // whether the next string is a key; values at the top
	for {
		t, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && values == 1 && len(stack) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("not one whole value")
		case err != nil:
			return err
		}
		if len(stack) == 0 {
			if values++; values > 1 {
				return errors.New("data after the value")
			}
		}
		top := len(stack) - 1
		if text, ok := t.(string); ok && key {
			// Beyond ASCII there are letters that fold to others, as ſ does to s.
			if strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
				return fmt.Errorf("key %.32q is not ASCII", text)
			}
			folded := strings.ToLower(text)
			if stack[top][folded] {
				return fmt.Errorf("key %.32q twice", text)
			}
			stack[top][folded] = true
			key = false
			continue
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if len(stack) == maxDepth {
				return errors.New("too deep")
			}
			var keys map[string]bool
			if t == json.Delim('{') {
				keys = map[string]bool{}
			}
			stack = append(stack, keys)
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
		key = len(stack) > 0 && stack[len(stack)-1] != nil
	}
}
