// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/json"
	"reflect"
	"testing"
)

func sampleHead() Head {
	return Head{
		Size: 7, Manifest: Ref{Version: 2, Digest: evidence("m")}, Pending: Ref{Version: 3, Digest: evidence("p")}, NotBefore: 9,
		DenyList: Ref{Version: 1, Digest: evidence("d")}, Recovery: Recovery{For: evidence("f"), Document: evidence("r")}, Time: 10, Batches: []string{"b", "a"},
	}
}

func TestMalformedHeadsAreRefused(t *testing.T) {
	good, err := sampleHead().encode()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := decodeHead(good); err != nil || !reflect.DeepEqual(h, sampleHead()) {
		t.Fatalf("%+v, %v", h, err)
	}
	for name, raw := range map[string]string{
		"nothing":       "",
		"no object":     "[]",
		"half":          string(good[:len(good)/2]),
		"a field more":  `{"x":1,` + string(good[1:]),
		"more after it": string(good) + "{}",
		"no entries":    `{"size":0,"batches":["a"]}`,
		"no batch":      `{"size":1,"batches":[]}`,
	} {
		if h, err := decodeHead([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// Whatever decodes is a head that follows itself and is written the same again.
func FuzzDecodeHead(f *testing.F) {
	good, err := sampleHead().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"size":1,"batches":["a"]}`))
	f.Add([]byte(`{"size":-1,"root":"AAAA","batches":["a"],"time":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := decodeHead(raw)
		if err != nil {
			return
		}
		if err := h.follows(h); err != nil || !h.same(h) || !h.recalls(h) {
			t.Errorf("a head does not follow itself: %v", err)
		}
		again, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(again) {
			t.Fatalf("not JSON: %q", again)
		}
		if back, err := decodeHead(again); err != nil || !reflect.DeepEqual(back, h) {
			t.Errorf("%+v became %+v, %v", h, back, err)
		}
	})
}
