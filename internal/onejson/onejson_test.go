// SPDX-License-Identifier: Apache-2.0

package onejson_test

import (
	"bytes"
	"testing"

	"github.com/c8s-dev/c8s/internal/onejson"
)

type document struct {
	Name  string   `json:"name"`
	Size  uint64   `json:"size"`
	Bytes []byte   `json:"bytes"`
	List  []string `json:"list"`
}

func TestOnlyTheOneEncodingIsRead(t *testing.T) {
	for text, good := range map[string]bool{
		`{"name":"a<b&c","size":1,"bytes":"AQI=","list":["x"]}`:     true,
		`{"name":"a","size":1,"bytes":"","list":[]}`:                true,
		`{"name":"a","size":1,"bytes":"AQI=","list":["x"]} `:        false,
		`{"name":"a","size":1,"bytes":"AQI=","list":["x"]}{}`:       false,
		`{ "name":"a","size":1,"bytes":"AQI=","list":["x"]}`:        false,
		`{"size":1,"name":"a","bytes":"AQI=","list":["x"]}`:         false,
		`{"Name":"a","size":1,"bytes":"AQI=","list":["x"]}`:         false,
		`{"name":"b","name":"a","size":1,"bytes":"","list":[]}`:     false,
		`{"name":"a","size":1,"bytes":"AQI=","list":["x"],"x":1}`:   false,
		`{"name":"a","size":1,"list":["x"]}`:                        false,
		`{"name":"a","size":1e0,"bytes":"AQI=","list":["x"]}`:       false,
		`{"name":"\u0061","size":1,"bytes":"AQI=","list":["x"]}`:    false,
		`{"name":"a","size":1,"bytes":"AQI","list":["x"]}`:          false,
		`{"name":"a","size":1,"bytes":"AQJ=","list":["x"]}`:         false,
		"{\"name\":\"\xff\",\"size\":1,\"bytes\":\"\",\"list\":[]}": false,
		`null`: false,
		``:     false,
	} {
		if err := onejson.Decode([]byte(text), 100, &document{}); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := onejson.Decode([]byte(`{"name":"a","size":1,"bytes":"","list":[]}`), 41, &document{}); err == nil {
		t.Error("a text over the limit was read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"a","size":1,"bytes":"AQI=","list":["x"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d document
		if onejson.Decode(text, 1<<10, &d) != nil {
			return
		}
		if again, err := onejson.Encode(d); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q was read and is written as %q, %v", text, again, err)
		}
	})
}
