// SPDX-License-Identifier: Apache-2.0

package onejson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/internal/onejson"
)

func TestOnlyJSONOfOneMeaningPasses(t *testing.T) {
	for text, good := range map[string]bool{
		`{}`:                               true,
		` {"a":{"a":1},"b":[{"a":2},"a"]}`: true,
		`"a"`:                              true,
		``:                                 false,
		`{"a":1,"a":2}`:                    false,
		`{"a":1,"A":2}`:                    false,
		`{"a":{"b":1,"\u0062":2}}`:         false,
		`{"fmspc":1,"fm\u017fpc":2}`:       false,
		`{"ſ":1}`:                          false,
		`[{"a":1,"a":1}]`:                  false,
		`{} {}`:                            false,
		`{"a":1`:                           false,
		`{"a":1}x`:                         false,
		strings.Repeat("[", 12) + strings.Repeat("]", 12): true,
		strings.Repeat("[", 13) + strings.Repeat("]", 13): false,
	} {
		if err := onejson.Check([]byte(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if onejson.Check(b) == nil && !json.Valid(b) {
			t.Error("passed what is not JSON")
		}
	})
}
