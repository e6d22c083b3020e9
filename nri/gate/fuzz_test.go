// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func framed(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		"", "null", "{}", `{"op":"ping"}`, `{"op":"create","create":{"id":"c","namespace":"k8s.io","config":"e30="}}`,
		`{"op":"exec","exec":{"id":"c","process":"e30=","config":"e30="}}`, `{"op":"lock","lock":{"addresses":["10.0.0.1/24"]}}`,
		`{"op":"lock","create":{},"lock":{}}`, `{"op":"stop"}`, `{"op":"ping","create":{}}`,
	} {
		f.Add(framed(body))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		asks := map[string]bool{opCreate: r.Create != nil, opExec: r.Exec != nil, opLock: r.Lock != nil, opPing: true}
		if !asks[r.Op] {
			t.Errorf("accepted %q without its question", r.Op)
		}
		var again bytes.Buffer
		if err := writeMessage(&again, r, 2*MaxRequest); err != nil {
			t.Fatal(err)
		}
		if _, err := readRequest(&again); err != nil {
			t.Errorf("does not read what it wrote: %v", err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		"", "null", "{}", `{"allowed":true}`, `{"allowed":true,"decision":{"allowed":true,"code":"allowed"}}`,
		`{"allowed":false,"decision":{"allowed":false,"code":"x","rule":"r"}}`,
	} {
		f.Add(framed(body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answer
		if err := readMessage(bytes.NewReader(b), &a, MaxAnswer); err != nil {
			return
		}
		if a.err() == nil && (!a.Allowed || !a.Decision.Allowed) {
			t.Errorf("%+v allows", a)
		}
		if !a.Allowed && policy.CodeOf(a.err()) == "" && !a.Decision.Allowed {
			t.Errorf("%+v refuses without a code", a)
		}
	})
}
