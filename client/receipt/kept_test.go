// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/receipt"
)

func TestKeptReceiptsHaveOneText(t *testing.T) {
	r, err := receipt.Verify(answered(t, nil), public(keyOf(1)), now())
	if err != nil {
		t.Fatal(err)
	}
	good, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, good, "", "  "); err != nil {
		t.Fatal(err)
	}
	if r, err := receipt.ParseReceipt(indented.Bytes()); err != nil || r.Check(public(keyOf(1))) != nil {
		t.Errorf("indented: %v", err)
	}
	for _, edit := range []struct{ from, to string }{
		{`"schema":"c8s.dev/receipt/v1"`, `"schema":"c8s.dev/receipt/v2"`},
		{`{"schema"`, `{"Schema"`},
		{`{"schema"`, `{"x":1,"schema"`},
		{`"base":`, `"base":"","base":`},
		{`web`, `\u0077eb`},
		{`web`, `Web`},
		{`\"@status\": 200`, `\"@status\":  200`},
		{`\"@status\": 200`, `\"@status\": 0200`},
		{`\"@status\": 200`, `\"@status\": 200\n\"@status\": 201`},
		{`\"@status\": 200\n`, ``},
		{`\"@path\";req: /accounts/7`, `\"@path\";req: accounts`},
		{`\"c8s-log\": 42`, `\"c8s-log\": 042`},
		{`\"c8s-log\": 42`, `\"c8s-more\": 42`},
		{`\"@signature-params\": (`, `\"@signature-params\": ((`},
		{`;created=`, `;x;created=`},
		{`;tag=\"c8s\"`, `;tag=\"x\"`},
		{`;tag=\"c8s\"`, `;tag=\"c8s\"\n`},
		{`"signature":"`, `"signature":"AAAA`},
		{`bank.example`, `bank .example`},
		{`bank.example`, `bänk.example`},
	} {
		text := strings.Replace(string(good), edit.from, edit.to, 1)
		if text == string(good) {
			t.Errorf("%s is not in %s", edit.from, good)
		}
		if r, err := receipt.ParseReceipt([]byte(text)); r != nil || attest.FailureCode(err) != receipt.CodeMalformed && attest.FailureCode(err) != receipt.CodeFields {
			t.Errorf("%s as %s: %v", edit.from, edit.to, err)
		}
	}
	for _, text := range []string{"", "null", "[]", string(good) + "{}", strings.Repeat(" ", 1<<20) + string(good)} {
		if _, err := receipt.ParseReceipt([]byte(text)); attest.FailureCode(err) != receipt.CodeMalformed {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	changed := strings.Replace(string(good), `\"c8s-workload\": web`, `\"c8s-workload\": db`, 1)
	if r, err := receipt.ParseReceipt([]byte(changed)); err != nil || attest.FailureCode(r.Check(public(keyOf(1)))) != receipt.CodeSignature {
		t.Errorf("of another workload: %v", err)
	}
}

func FuzzParseReceipt(f *testing.F) {
	for _, edit := range []func(h http.Header, req *http.Request){
		nil,
		func(h http.Header, req *http.Request) {
			h.Del(receipt.HeaderLog)
			h.Del("Content-Digest")
			req.Header.Del("Content-Digest")
			receipt.Ask(req.Header, nil)
		},
	} {
		r, err := receipt.Verify(answered(f, edit), public(keyOf(1)), now())
		if err != nil {
			f.Fatal(err)
		}
		text, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(bytes.Replace(text, []byte("web"), []byte("db"), 1))
	}
	f.Add([]byte(`{"schema":"c8s.dev/receipt/v1","base":"\"@signature-params\": ();created=1;keyid=\"x\"","signature":"AA=="}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := receipt.ParseReceipt(text)
		if err != nil {
			if r != nil || attest.FailureCode(err) == "" {
				t.Fatalf("refused without a code, or with a receipt: %v", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("encoding what was accepted: %v", err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil || !bytes.Equal(compact.Bytes(), again) {
			t.Fatalf("%s was read, %s is written", text, again)
		}
		if r.Check(public(keyOf(1))) == nil && r.Workload != "web" {
			t.Fatal("somebody forged a signature")
		}
	})
}
