// SPDX-License-Identifier: Apache-2.0

package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
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
