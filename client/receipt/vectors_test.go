// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The key of RFC 9421 appendix B.1.4.
const (
	rfcSeed   = "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU"
	rfcPublic = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"
)

func rfcKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString(rfcSeed)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if got := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)); got != rfcPublic {
		t.Fatalf("the public key is %s, want %s", got, rfcPublic)
	}
	return key
}

// RFC 9421 appendix B.2.6: the same request gives the same base and signature.
func TestSignatureBaseOfTheRFC(t *testing.T) {
	req := httptest.NewRequest(http.MethodPost, "/foo?param=Value&Pet=dog", strings.NewReader(`{"hello": "world"}`))
	req.Host = "Example.com"
	for name, value := range map[string]string{"Date": "Tue, 20 Apr 2021 02:07:55 GMT", "Content-Type": " application/json ", "Content-Length": "18"} {
		req.Header.Set(name, value)
	}
	path, query, err := target(req)
	if err != nil || query != "?param=Value&Pet=dog" {
		t.Errorf("query %s (%v)", query, err)
	}
	base := signatureBase([]component{
		{name: "date", value: joined(req.Header, "Date")},
		{name: "@method", value: req.Method},
		{name: "@path", value: path},
		{name: "@authority", value: authority(req)},
		{name: "content-type", value: joined(req.Header, "Content-Type")},
		{name: "content-length", value: joined(req.Header, "Content-Length")},
	}, `("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`)
	const want = `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	if string(base) != want {
		t.Errorf("the base is\n%s\nwant\n%s", base, want)
	}
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(rfcKey(t), base))
	if want := "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="; signature != want {
		t.Errorf("the signature is %s, want %s", signature, want)
	}
}

func TestWhatOfARequestIsSigned(t *testing.T) {
	for _, tt := range []struct {
		uri, host, scheme string
		path, query, auth string
	}{
		{"/", "bank.example", "https", "/", "?", "bank.example"},
		{"/a?", "BANK.example:443", "https", "/a", "?", "bank.example"},
		{"/a?b?c", "bank.example:8443", "https", "/a", "?b?c", "bank.example:8443"},
		{"/a%2Fb/%7e?q=%20+", "bank.example:80", "https", "/a%2Fb/%7e", "?q=%20+", "bank.example:80"},
		{"//x/..", "bank.example:80", "http", "//x/..", "?", "bank.example"},
		{"http://bank.example/a?b", "bank.example", "http", "/a", "?b", "bank.example"},
		{"http://bank.example", "bank.example", "http", "/", "?", "bank.example"},
		{"/", "[2001:db8::1]:443", "https", "/", "?", "[2001:db8::1]"},
	} {
		req := httptest.NewRequest(http.MethodGet, tt.uri, nil)
		req.Host, req.RequestURI, req.URL.Scheme = tt.host, tt.uri, tt.scheme
		path, query, err := target(req)
		if got := authority(req); err != nil || path != tt.path || query != tt.query || got != tt.auth {
			t.Errorf("%+v gives %s, %s, %s (%v)", tt, path, query, got, err)
		}
	}
	for _, uri := range []string{"*", "bank.example:443", ""} { // OPTIONS *, CONNECT
		if _, _, err := target(&http.Request{RequestURI: uri}); err == nil {
			t.Errorf("%q has a path", uri)
		}
	}
}
