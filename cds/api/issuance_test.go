// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

func issuance(t testing.TB) []byte {
	t.Helper()
	d := policy.DigestOf(nil)
	entry, err := translog.Entry{
		Type: translog.TypeIssuance, Time: time.Unix(1_800_000_000, 0), Certificate: d, Issuer: d, Evidence: d, Manifest: d,
		Role: policy.RoleWorkload, NotAfter: time.Unix(1_800_003_600, 0),
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	text, err := (&api.Issuance{Entry: entry, Index: 7, Proof: [][]byte{bytes.Repeat([]byte{1}, sha256.Size)}, Checkpoint: "log\n8\n<&>\n"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestIssuanceHasOneText(t *testing.T) {
	good := issuance(t)
	i, err := api.ParseIssuance(good)
	if err != nil {
		t.Fatal(err)
	}
	r := i.Receipt()
	if r.GetIndex() != 7 || len(r.GetProof()) != 1 || string(r.GetCheckpoint()) != i.Checkpoint || !bytes.Contains(good, r.GetEntry()) {
		t.Errorf("the receipt is %v", r)
	}
	for _, edit := range []struct{ from, to string }{
		{`{"entry"`, `{ "entry"`},
		{`"index":7`, `"index":-7`},
		{`"index":7`, `"index":7.0`},
		{`"index":7`, `"index":7,"index":7`},
		{`"index":7`, `"index":7,"more":1`},
		{`"proof":["`, `"proof":["AA==","`},
		{`"type":"issuance"`, `"type": "issuance"`},
		{`"type":"issuance"`, `"type":"other"`},
		{`<&>`, `\u003c&>`},
	} {
		text := strings.Replace(string(good), edit.from, edit.to, 1)
		if text == string(good) {
			t.Errorf("%s is not in %s", edit.from, good)
		}
		if i, err := api.ParseIssuance([]byte(text)); err == nil {
			t.Errorf("%s is read as %+v", text, i)
		}
	}
	if _, err := api.ParseIssuance(bytes.Repeat([]byte{' '}, 1<<20)); err == nil || !strings.Contains(fmt.Sprint(err), "at most") {
		t.Errorf("a text without end: %v", err)
	}
}

func FuzzParseIssuance(f *testing.F) {
	f.Add(issuance(f))
	f.Add([]byte(`{"entry":{},"index":0,"proof":[],"checkpoint":""}`))
	f.Add([]byte(`{"entry":null,"index":1,"proof":null,"checkpoint":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := api.ParseIssuance(text)
		if err != nil {
			return
		}
		if again, err := i.Marshal(); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%s was read, %s is written (%v)", text, again, err)
		}
	})
}
