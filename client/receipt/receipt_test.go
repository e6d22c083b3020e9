// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/policy"
)

func now() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }

func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func fields() receipt.Fields {
	return receipt.Fields{Workload: "web", Manifest: 7, Evidence: policy.DigestOf([]byte("evidence")), Log: 42}
}

// answered is an answer as a client has it: what a server that signs with key 1
// sent, and the request that asked.
func answered(t testing.TB, edit func(h http.Header, req *http.Request)) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "https://Bank.example:443/accounts/7?page=2", nil)
	if err != nil {
		t.Fatal(err)
	}
	receipt.Ask(req.Header, []byte("sixteen byte one"))
	req.Header.Set("Content-Digest", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:")
	h := http.Header{"Content-Type": {"text/plain"}, "Content-Digest": {"sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"}}
	fields().Set(h)
	if edit != nil {
		edit(h, req)
	}
	in := httptest.NewRequest(req.Method, req.URL.RequestURI(), nil) // as it comes in
	in.Host, in.Header, in.URL.Scheme = req.URL.Host, req.Header.Clone(), "https"
	receipt.NewSigner(keyOf(1), now).Sign(h, http.StatusOK, in)
	return &http.Response{StatusCode: http.StatusOK, Header: h, Request: req}
}

func TestASignedAnswerIsAReceipt(t *testing.T) {
	resp := answered(t, nil)
	r, err := receipt.Verify(resp, public(keyOf(1)), now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if r.Fields != fields() || r.Method != http.MethodPost || r.Authority != "bank.example" || r.Path != "/accounts/7" || r.Query != "?page=2" || r.Status != http.StatusOK || !r.Created.Equal(now()) {
		t.Errorf("the receipt says %+v", r)
	}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := receipt.ParseReceipt(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Check(public(keyOf(1))); err != nil {
		t.Errorf("the kept receipt: %v", err)
	}
	if again, err := kept.Encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("encoding again gives %s (%v)", again, err)
	}
	if err := kept.Check(public(keyOf(2))); attest.FailureCode(err) != receipt.CodeKey {
		t.Errorf("by another key: %v", err)
	}
}

func TestKeyIDIsThatOfTheSubjectPublicKeyInfo(t *testing.T) {
	spki, err := x509.MarshalPKIXPublicKey(public(keyOf(1)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := receipt.KeyID(public(keyOf(1))), string(policy.DigestOf(spki)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOnlyWhoAsksGetsASignature(t *testing.T) {
	id := receipt.KeyID(public(keyOf(1)))
	for ask, want := range map[string]bool{
		`c8s=()`:                            true,
		`c8s=("@status")`:                   true,
		`c8s=("@status" "c8s-log");created`: true,
		`c8s=("content-digest";req);alg="ed25519";tag="c8s";nonce="n"`: true,
		`c8s=("@status");keyid="` + id + `"`:                           true,
		`sig1=("@method"), c8s=("@status")`:                            true,
		``:                                                             false,
		`c8s`:                                                          false,
		`c8s="@status"`:                                                false,
		`sig1=("@status")`:                                             false,
		`c8s=("@status"`:                                               false,
		`c8s=("@status") x`:                                            false,
		`c8s=("@method")`:                                              false, // of an answer there is none
		`c8s=("@status";req)`:                                          false,
		`c8s=("c8s-workload";sf)`:                                      false,
		`c8s=("set-cookie")`:                                           false,
		`c8s=("@status" 1)`:                                            false,
		`c8s=("@status");keyid="sha256:other"`:                         false,
		`c8s=("@status");alg="rsa-pss-sha512"`:                         false,
		`c8s=("@status");tag="other"`:                                  false,
		`c8s=("@status");created=1618884473`:                           false,
		`c8s=("@status");expires`:                                      false,
		`c8s=("@status");nonce=1`:                                      false,
		`c8s=("@status");nonce="a\"b"`:                                 false,
		`c8s=("@status");nonce="` + strings.Repeat("n", 129) + `"`: false,
		`c8s=("@status");nonce="` + strings.Repeat("n", 128) + `"`: true,
		`c8s=("@status"), x="` + strings.Repeat("x", 4096) + `"`:   false,
	} {
		resp := answered(t, func(_ http.Header, req *http.Request) {
			req.Header.Del("Accept-Signature")
			if ask != "" {
				req.Header.Set("Accept-Signature", ask)
			}
		})
		if got := resp.Header.Get("Signature") != ""; got != want {
			t.Errorf("%s: signed is %v", ask, got)
		}
		_, err := receipt.Verify(resp, public(keyOf(1)), now())
		if want != (err == nil) || !want && attest.FailureCode(err) != receipt.CodeMissing {
			t.Errorf("%s: %v", ask, err)
		}
	}
}

func TestWhatCannotBeSignedIsNot(t *testing.T) {
	for name, edit := range map[string]func(h http.Header, req *http.Request){
		"no workload":        func(h http.Header, _ *http.Request) { h.Del(receipt.HeaderWorkload) },
		"two workloads":      func(h http.Header, _ *http.Request) { h.Add(receipt.HeaderWorkload, "db") },
		"no manifest":        func(h http.Header, _ *http.Request) { h.Set(receipt.HeaderManifest, "0") },
		"no evidence":        func(h http.Header, _ *http.Request) { h.Set(receipt.HeaderEvidence, "sha256:1") },
		"a digest in lines":  func(h http.Header, _ *http.Request) { h.Set("Content-Digest", "a\n\"@status\": 500") },
		"a digest not ASCII": func(h http.Header, _ *http.Request) { h.Set("Content-Digest", "ä") },
		"a digest too long":  func(h http.Header, _ *http.Request) { h.Set("Content-Digest", strings.Repeat("a", 64<<10)) },
	} {
		t.Run(name, func(t *testing.T) {
			if resp := answered(t, edit); resp.Header.Get("Signature") != "" || resp.Header.Get("Signature-Input") != "" {
				t.Errorf("it is signed: %v", resp.Header)
			}
		})
	}
}

func TestADateIsThereIfItIsSigned(t *testing.T) {
	for date, want := range map[string]string{
		"":                              "Wed, 01 Jul 2026 12:00:00 GMT",
		"yesterday":                     "Wed, 01 Jul 2026 12:00:00 GMT",
		"Tue, 30 Jun 2026 12:00:00 GMT": "Tue, 30 Jun 2026 12:00:00 GMT",
	} {
		resp := answered(t, func(h http.Header, _ *http.Request) {
			if date != "" {
				h.Set("Date", date)
			}
		})
		if got := resp.Header.Get("Date"); got != want {
			t.Errorf("%q became %q", date, got)
		}
	}
}

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

// Through net/http on both sides, over both protocols.
func TestReceiptsOverHTTP(t *testing.T) {
	signer := receipt.NewSigner(keyOf(1), now)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fields().Set(w.Header())
		signer.Sign(w.Header(), http.StatusCreated, req)
		w.WriteHeader(http.StatusCreated)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	one := server.Client().Transport.(*http.Transport).Clone()
	one.ForceAttemptHTTP2, one.Protocols, one.TLSClientConfig.NextProtos = false, new(http.Protocols), []string{"http/1.1"}
	one.Protocols.SetHTTP1(true)
	defer one.CloseIdleConnections()
	for protocol, transport := range map[string]http.RoundTripper{"HTTP/1.1": one, "HTTP/2.0": server.Client().Transport} {
		for _, target := range []string{"", "/", "/a|b/%2F//%7e?x=%20y&z", "/?", "/ü"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+target, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			receipt.Ask(req.Header, []byte("0123456789abcdef"))
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			r, err := receipt.Verify(resp, public(keyOf(1)), now())
			if err != nil || resp.Proto != protocol {
				t.Errorf("%s over %s: %v", target, resp.Proto, err)
				continue
			}
			if r.Status != http.StatusCreated || r.Authority != strings.TrimPrefix(server.URL, "https://") {
				t.Errorf("%s over %s: %+v", target, protocol, r)
			}
		}
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

// What a server reads of a stranger's request, and a client of an answer.
func FuzzSignAndVerify(f *testing.F) {
	f.Add(`c8s=("@status");created`, "/a?b", "bank.example", "sha-256=:AA==:", "sig1=()", "sig1=:AA==:")
	f.Add(`c8s=("@status" "@path";req);nonce="x";tag="c8s"`, "/", "BANK.example:443", "", "", "")
	f.Add(`c8s=();keyid="\"", x=1.5`, "*", "", "\n", "c8s=()", "c8s=::")
	f.Fuzz(func(t *testing.T, accept, uri, host, digest, input, signature string) {
		req := &http.Request{Method: http.MethodGet, RequestURI: uri, Host: host, Header: http.Header{"Accept-Signature": {accept}}}
		h := http.Header{"Content-Digest": {digest}, "Signature-Input": {input}, "Signature": {signature}}
		resp := &http.Response{StatusCode: 200, Header: h.Clone(), Request: req}
		if _, err := receipt.Verify(resp, public(keyOf(1)), now()); err == nil {
			t.Fatal("somebody forged a receipt")
		}
		fields().Set(resp.Header)
		if !receipt.NewSigner(keyOf(1), now).Sign(resp.Header, resp.StatusCode, req) {
			return
		}
		r, err := receipt.Verify(resp, public(keyOf(1)), now())
		if err != nil {
			t.Fatalf("what was signed is refused: %v", err)
		}
		text, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := receipt.ParseReceipt(text); err != nil || kept.Check(public(keyOf(1))) != nil {
			t.Fatalf("what was kept is refused: %v", err)
		}
	})
}

func TestNotAskingCostsNothing(t *testing.T) {
	signer, req, h := receipt.NewSigner(keyOf(1), now), httptest.NewRequest(http.MethodGet, "/", nil), http.Header{}
	if n := testing.AllocsPerRun(100, func() { signer.Sign(h, http.StatusOK, req) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func BenchmarkSign(b *testing.B) {
	signer := receipt.NewSigner(keyOf(1), now)
	for name, ask := range map[string]bool{"asked": true, "not-asked": false} {
		b.Run(name, func(b *testing.B) {
			req := httptest.NewRequest(http.MethodGet, "/accounts/7?page=2", nil)
			if ask {
				receipt.Ask(req.Header, []byte("sixteen byte one"))
			}
			b.ReportAllocs()
			for b.Loop() {
				h := http.Header{}
				if ask {
					fields().Set(h)
				}
				if signer.Sign(h, http.StatusOK, req) != ask {
					b.Fatal("not as asked")
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	resp := answered(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := receipt.Verify(resp, public(keyOf(1)), now()); err != nil {
			b.Fatal(err)
		}
	}
}
