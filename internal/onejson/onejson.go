// SPDX-License-Identifier: Apache-2.0

// Package onejson reads and writes documents, each value of which has exactly
// one text: what Encode writes. So a document can be hashed and signed as it
// is, and two readers cannot understand it differently.
package onejson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Encode writes v without spaces, members in the order of the struct, and
// without the escapes for HTML.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// Decode reads into v, a pointer to a zero value, a text of at most limit bytes
// that Encode writes of the same value. Unknown, repeated, missing and reordered
// members, other spellings and anything around the value are refused by that.
func Decode(text []byte, limit int, v any) error {
	if len(text) > limit {
		return fmt.Errorf("%d bytes, at most %d accepted", len(text), limit)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return err
	}
	again, err := Encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(text, again) {
		return errors.New("it is not in its one canonical encoding: no spaces, every member once, in order, and no others")
	}
	return nil
}
