// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/policy"
)

// A backend may sign for itself. What it says under our label, or what makes
// the field unreadable, goes.
func TestSignaturesOfBackendsStayApart(t *testing.T) {
	for input, stays := range map[string]bool{
		`sig1=("@status")`: true,
		`c8s=("@status")`:  false,
		`sig1=(`:           false,
		``:                 false,
	} {
		resp := answered(t, func(h http.Header, _ *http.Request) {
			h.Set("Signature-Input", input)
			h.Set("Signature", "sig1=:AA==:")
		})
		if _, err := receipt.Verify(resp, public(keyOf(1)), now()); err != nil {
			t.Errorf("beside %s: %v", input, err)
		}
		if got := len(resp.Header["Signature"]) == 2; got != stays {
			t.Errorf("%s stays: %v", input, got)
		}
	}
}

func TestTamperedAnswersAreRefused(t *testing.T) {
	set := func(name, value string) func(resp *http.Response) {
		return func(resp *http.Response) { resp.Header.Set(name, value) }
	}
	request := func(edit func(req *http.Request)) func(resp *http.Response) {
		return func(resp *http.Response) { edit(resp.Request) }
	}
	replace := func(name, from, to string) func(resp *http.Response) {
		return func(resp *http.Response) {
			resp.Header.Set(name, strings.Replace(resp.Header.Get(name), from, to, 1))
		}
	}
	for name, tt := range map[string]struct {
		edit func(resp *http.Response)
		code string
	}{
		"status":            {func(resp *http.Response) { resp.StatusCode = http.StatusAccepted }, receipt.CodeSignature},
		"date":              {set("Date", "Tue, 30 Jun 2026 12:00:00 GMT"), receipt.CodeSignature},
		"no date":           {func(resp *http.Response) { resp.Header.Del("Date") }, receipt.CodeMalformed},
		"workload":          {set(receipt.HeaderWorkload, "db"), receipt.CodeSignature},
		"workload in case":  {set(receipt.HeaderWorkload, "Web"), receipt.CodeFields},
		"a second workload": {func(resp *http.Response) { resp.Header.Add(receipt.HeaderWorkload, "db") }, receipt.CodeFields},
		"manifest":          {set(receipt.HeaderManifest, "8"), receipt.CodeSignature},
		"manifest's digits": {set(receipt.HeaderManifest, "07"), receipt.CodeFields},
		"evidence":          {set(receipt.HeaderEvidence, string(policy.DigestOf(nil))), receipt.CodeSignature},
		"log":               {set(receipt.HeaderLog, "43"), receipt.CodeSignature},
		"log's sign":        {set(receipt.HeaderLog, "+42"), receipt.CodeFields},
		"no log":            {func(resp *http.Response) { resp.Header.Del(receipt.HeaderLog) }, receipt.CodeSignature},
		"content digest":    {set("Content-Digest", "sha-256=:AAAA:"), receipt.CodeSignature},
		"no content digest": {func(resp *http.Response) { resp.Header.Del("Content-Digest") }, receipt.CodeSignature},
		"method":            {request(func(req *http.Request) { req.Method = http.MethodGet }), receipt.CodeSignature},
		"authority":         {request(func(req *http.Request) { req.Host = "evil.example" }), receipt.CodeSignature},
		"another port":      {request(func(req *http.Request) { req.Host = "bank.example:8443" }), receipt.CodeSignature},
		"path":              {request(func(req *http.Request) { req.URL.Path = "/accounts/8" }), receipt.CodeSignature},
		"query":             {request(func(req *http.Request) { req.URL.RawQuery = "page=3" }), receipt.CodeSignature},
		"no query":          {request(func(req *http.Request) { req.URL.RawQuery = "" }), receipt.CodeSignature},
		"request's digest":  {request(func(req *http.Request) { req.Header.Del("Content-Digest") }), receipt.CodeSignature},
		"nonce":             {request(func(req *http.Request) { receipt.Ask(req.Header, []byte("another 16 bytes")) }), receipt.CodeNonce},
		"nobody asked":      {request(func(req *http.Request) { req.Header.Del("Accept-Signature") }), receipt.CodeMissing},
		"no request":        {func(resp *http.Response) { resp.Request = nil }, receipt.CodeMissing},
		"no signature":      {func(resp *http.Response) { resp.Header.Del("Signature") }, receipt.CodeMissing},
		"no input":          {func(resp *http.Response) { resp.Header.Del("Signature-Input") }, receipt.CodeMissing},
		"another label":     {replace("Signature", "c8s=", "sig1="), receipt.CodeMissing},
		"input elsewhere":   {replace("Signature-Input", "c8s=", "sig1="), receipt.CodeMissing},
		"input unreadable":  {replace("Signature-Input", "(", "(("), receipt.CodeMalformed},
		"signature cut":     {replace("Signature", "c8s=:", "c8s=:AAAA"), receipt.CodeSignature},
		"not bytes":         {set("Signature", `c8s="AAAA"`), receipt.CodeMissing},
		"signature unread":  {set("Signature", `c8s=:AA`), receipt.CodeMalformed},
		"created":           {replace("Signature-Input", "created=17", "created=18"), receipt.CodeSignature},
		"created is text":   {replace("Signature-Input", "created=", `created="1";x=`), receipt.CodeMalformed},
		"key id":            {replace("Signature-Input", `keyid="sha256:`, `keyid="sha256:0`), receipt.CodeKey},
		"no key id":         {replace("Signature-Input", `keyid=`, `x=`), receipt.CodeMalformed},
		"its nonce":         {replace("Signature-Input", `nonce="`, `nonce="A`), receipt.CodeSignature},
		"without its nonce": {replace("Signature-Input", `nonce=`, `x=`), receipt.CodeSignature},
		"signed by another": {func(resp *http.Response) { resign(resp, keyOf(2)) }, receipt.CodeKey},
	} {
		t.Run(name, func(t *testing.T) {
			resp := answered(t, nil)
			tt.edit(resp)
			if r, err := receipt.Verify(resp, public(keyOf(1)), now()); r != nil || attest.FailureCode(err) != tt.code {
				t.Errorf("%v, want %s", err, tt.code)
			}
		})
	}
}

// resign puts another key's signature in place of the first.
func resign(resp *http.Response, key ed25519.PrivateKey) {
	resp.Header.Del("Signature")
	resp.Header.Del("Signature-Input")
	receipt.NewSigner(key, now).Sign(resp.Header, resp.StatusCode, resp.Request)
}

func TestReceiptsAreOfNow(t *testing.T) {
	for ago, good := range map[time.Duration]bool{
		0: true, 5 * time.Minute: true, -5 * time.Minute: true, 5*time.Minute + time.Second: false, -5*time.Minute - time.Second: false,
	} {
		_, err := receipt.Verify(answered(t, nil), public(keyOf(1)), now().Add(ago))
		if good != (err == nil) || !good && attest.FailureCode(err) != receipt.CodeTime {
			t.Errorf("%s later: %v", ago, err)
		}
	}
}

func TestBackendsSayNothingUnderOurNames(t *testing.T) {
	h := http.Header{"C8s-Workload": {"evil", "two"}, "C8s-Anything": {"x"}, "c8s-log": {"1"}, "C8s": {"stays"}, "X-C8s-Workload": {"stays"}}
	f := fields()
	f.Log = 0
	f.Set(h)
	if len(h) != 5 || len(h["C8s-Workload"]) != 1 || h.Get("C8s-Workload") != "web" {
		t.Errorf("left is %v", h)
	}
	if got, err := receipt.FieldsOf(h); err != nil || got != f {
		t.Errorf("read as %+v (%v)", got, err)
	}
}
