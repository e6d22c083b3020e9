// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestMessagesThatMakeNoSenseAreRefused(t *testing.T) {
	many := `["` + strings.Join(strings.Split(strings.Repeat("a", maxSockets+1), ""), `","`) + `"]`
	for name, raw := range map[string]string{
		"empty":            ``,
		"no operation":     `{}`,
		"unknown":          `{"op":"unlock"}`,
		"no JSON":          `op=hello`,
		"two documents":    `{"op":"take"}{"op":"done"}`,
		"pod without info": `{"op":"pod","pod":{"open":true}}`,
		"no pod":           `{"op":"pod"}`,
		"empty name":       `{"op":"sockets","sockets":[""]}`,
		"name twice":       `{"op":"sockets","sockets":["a","a"]}`,
		"long name":        `{"op":"sockets","sockets":["` + strings.Repeat("n", maxName+1) + `"]}`,
		"many sockets":     `{"op":"sockets","sockets":` + many + `}`,
		"many kinds":       `{"op":"take","kinds":["k"` + strings.Repeat(`,"k"`, maxTerms) + `]}`,
		"no memory":        `{"op":"memory"}`,
		"memory, no kind":  `{"op":"memory","memory":{"data":[]}}`,
		"memory, no data":  `{"op":"memory","memory":{"kind":"k"}}`,
		"oversized":        `{"op":"refused","why":"` + strings.Repeat("x", maxMessage) + `"}`,
	} {
		if m, err := parse([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestFieldsOfALaterReleaseAreIgnored(t *testing.T) {
	m, err := parse([]byte(`{"op":"hello","versions":[1,2],"terms":{"mark":"0x1"},"later":{"x":1}}`))
	if err != nil || !reflect.DeepEqual(m.Versions, []int{1, 2}) || m.Terms["mark"] != "0x1" {
		t.Errorf("%+v, %v", m, err)
	}
}

// What is accepted can be sent, and is then the same message.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"op":"hello","versions":[1],"release":"v1","terms":{"mark":"0x1000"}}`,
		`{"op":"pods"}`, `{"op":"pod","pod":{"info":{"uid":"a"},"open":true}}`, `{"op":"end"}`, `{"op":"take"}`,
		`{"op":"take","kinds":["answers/1","affinity/1"]}`, `{"op":"memory","memory":{"kind":"answers/1","data":{"uid":"a"}}}`,
		`{"op":"sockets","sockets":["tcp4","tcp6"]}`, `{"op":"done"}`, `{"op":"refused","why":"busy"}`, `{"op":"pod","pod":{"info":null}}`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parse(raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q cannot be sent: %v", raw, err)
		}
		if len(again) > maxMessage {
			return // escapes may have made it longer
		}
		twin, err := parse(again)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, again, err)
		}
		once, err := json.Marshal(twin)
		if err != nil || string(once) != string(again) {
			t.Fatalf("%q became %q (%v)", again, once, err)
		}
	})
}
