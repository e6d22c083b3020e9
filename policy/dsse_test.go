// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func operatorKey(t testing.TB, name string, key crypto.Signer) policy.OperatorKey {
	t.Helper()
	k, err := policy.NewOperatorKey(name, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The example of the DSSE protocol document.
func TestPreAuthMatchesTheSpecification(t *testing.T) {
	got := policy.PreAuth("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOpenReturnsThePayloadByteForByte(t *testing.T) {
	f := policytest.New(t)
	payload := append([]byte("\n\t "), f.Payload...)
	envelope, err := policy.Sign(payload, f.Keys...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.Open(envelope, f.Operators)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Payload, payload) || s.Digest != policy.DigestOf(payload) || !bytes.Equal(s.Envelope, envelope) {
		t.Error("the payload or envelope changed on the way")
	}
}

func TestOpenCountsDistinctTrustedKeys(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(3, 2))
	stranger := ecdsaKey(t, elliptic.P256())
	sign := func(keys ...crypto.Signer) *policy.Envelope {
		text, err := policy.Sign(f.Payload, keys...)
		if err != nil {
			t.Fatal(err)
		}
		e, err := policy.ParseEnvelope(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	one, two := sign(f.Keys[0]), sign(f.Keys[0], f.Keys[2])
	tests := []struct {
		name    string
		edit    func() *policy.Envelope
		signers []string // nil: refused
		ignored int
	}{
		{"two of three", func() *policy.Envelope { return two }, []string{"operator-1", "operator-3"}, 0},
		{"one of three", func() *policy.Envelope { return one }, nil, 0},
		{"one key twice", func() *policy.Envelope {
			e := *one
			e.Signatures = append(slices.Clone(e.Signatures), e.Signatures[0])
			return &e
		}, nil, 0},
		{"one key under two keyids", func() *policy.Envelope {
			e := *one
			e.Signatures = append(slices.Clone(e.Signatures), policy.Signature{KeyID: two.Signatures[1].KeyID, Sig: e.Signatures[0].Sig})
			return &e
		}, nil, 0},
		{"one key with and without keyid", func() *policy.Envelope {
			e := *one
			e.Signatures = append(slices.Clone(e.Signatures), policy.Signature{Sig: e.Signatures[0].Sig})
			return &e
		}, nil, 0},
		{"a stranger does not count", func() *policy.Envelope { return sign(f.Keys[0], stranger) }, nil, 0},
		{"a stranger does not harm", func() *policy.Envelope { return sign(f.Keys[0], stranger, f.Keys[1]) }, []string{"operator-1", "operator-2"}, 1},
		{"without keyids", func() *policy.Envelope {
			e := *two
			e.Signatures = []policy.Signature{{Sig: two.Signatures[0].Sig}, {Sig: two.Signatures[1].Sig}}
			return &e
		}, []string{"operator-1", "operator-3"}, 0},
		{"changed payload", func() *policy.Envelope {
			e := *two
			e.Payload = bytes.Replace(e.Payload, []byte("c8s.test"), []byte("c8s.evil"), 1)
			return &e
		}, nil, 0},
		{"broken signature", func() *policy.Envelope {
			e := *two
			broken := slices.Clone(e.Signatures[0].Sig)
			broken[3] ^= 1
			e.Signatures = []policy.Signature{{KeyID: e.Signatures[0].KeyID, Sig: broken}, e.Signatures[1]}
			return &e
		}, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, err := tt.edit().Encode()
			if err != nil {
				t.Fatal(err)
			}
			s, err := policy.Open(text, f.Operators)
			if tt.signers == nil {
				if policy.CodeOf(err) != policy.CodeThresholdUnmet || s != nil {
					t.Fatalf("Open = %v, %v; want %s", s, err, policy.CodeThresholdUnmet)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Signers, tt.signers) || len(s.Ignored) != tt.ignored {
				t.Errorf("signers %v, ignored %v; want %v and %d", s.Signers, s.Ignored, tt.signers, tt.ignored)
			}
		})
	}
}

func TestOpenTakesBothAlgorithmsAndBothKeyForms(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ecdsaKey(t, elliptic.P256())
	o := policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{operatorKey(t, "ed", ed), operatorKey(t, "ec", ec)}}
	der, err := base64.StdEncoding.DecodeString(o.Keys[1].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := policy.Operators{Threshold: 2, Keys: slices.Clone(o.Keys)}
	inPEM.Keys[1].PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	policytest.Sign(t, policytest.Manifest(inPEM), o, ed, ec)
	if o.Digest() != inPEM.Digest() {
		t.Error("the digest depends on how a key is written")
	}
}

func TestAddSignatureKeepsThePayloadAndTheOthers(t *testing.T) {
	f := policytest.New(t, policytest.WithOperators(2, 2))
	first, err := policy.Sign(f.Payload, f.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Open(first, f.Operators); policy.CodeOf(err) != policy.CodeThresholdUnmet {
		t.Fatalf("one of two signatures: %v", err)
	}
	both, err := policy.AddSignature(first, f.Keys[1])
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.AddSignature(both, f.Keys[1])
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.Open(again, f.Operators)
	if err != nil || !bytes.Equal(s.Payload, f.Payload) {
		t.Fatalf("payload changed or %v", err)
	}
	if e, err := policy.ParseEnvelope(again); err != nil || len(e.Signatures) != 2 {
		t.Errorf("signing twice with a key left %d signatures (%v)", len(e.Signatures), err)
	}
}

func TestSignRefusesWhatNobodyWouldAccept(t *testing.T) {
	f := policytest.New(t)
	if _, err := policy.Sign([]byte("{}"), f.Keys...); policy.CodeOf(err) != policy.CodeMissingField {
		t.Errorf("invalid manifest: %v", err)
	}
	if _, err := policy.Sign(f.Payload); policy.CodeOf(err) != policy.CodeSignatures {
		t.Errorf("no key: %v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{weak, ecdsaKey(t, elliptic.P384())} {
		if _, err := policy.Sign(f.Payload, key); policy.CodeOf(err) != policy.CodeKeyUnsupported {
			t.Errorf("%T: %v", key.Public(), err)
		}
	}
}

func TestOpenRefusesBadEnvelopes(t *testing.T) {
	f := policytest.New(t)
	edit := func(change func(e map[string]any)) []byte {
		var e map[string]any
		if err := json.Unmarshal(f.Envelope, &e); err != nil {
			t.Fatal(err)
		}
		change(e)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first := func(e map[string]any) map[string]any { return e["signatures"].([]any)[0].(map[string]any) }
	tests := []struct {
		name string
		text []byte
		code policy.Code
	}{
		{"a bare manifest", f.Payload, policy.CodeMissingField},
		{"too large", bytes.Repeat([]byte(" "), policy.MaxEnvelope+1), policy.CodeTooLarge},
		{"trailing data", append(slices.Clone(f.Envelope), '{', '}'), policy.CodeTrailing},
		{"two payloads", bytes.Replace(f.Envelope, []byte(`"payloadType"`), []byte(`"payload":"", "payloadType"`), 1), policy.CodeDuplicateKey},
		{"other payload type", edit(func(e map[string]any) { e["payloadType"] = "application/vnd.in-toto+json" }), policy.CodePayloadType},
		{"payload in another case", edit(func(e map[string]any) { e["Payload"] = e["payload"]; delete(e, "payload") }), policy.CodeMissingField},
		{"payload not base64", edit(func(e map[string]any) { e["payload"] = "!" }), policy.CodeBase64},
		{"payload without padding", edit(func(e map[string]any) { e["payload"] = "YQ" }), policy.CodeBase64},
		{"payload with loose bits", edit(func(e map[string]any) { e["payload"] = "YR==" }), policy.CodeBase64},
		{"payload null", edit(func(e map[string]any) { e["payload"] = nil }), policy.CodeNull},
		{"no signatures", edit(func(e map[string]any) { e["signatures"] = []any{} }), policy.CodeSignatures},
		{"too many signatures", edit(func(e map[string]any) { e["signatures"] = slices.Repeat(e["signatures"].([]any), 65) }), policy.CodeSignatures},
		{"signature too long", edit(func(e map[string]any) { first(e)["sig"] = strings.Repeat("AAAA", 100) }), policy.CodeSignatures},
		{"keyid too long", edit(func(e map[string]any) { first(e)["keyid"] = strings.Repeat("a", 300) }), policy.CodeSignatures},
		{"signature missing", edit(func(e map[string]any) { delete(first(e), "sig") }), policy.CodeMissingField},
		{"signature of another keyid", edit(func(e map[string]any) { first(e)["keyid"] = "sha256:00" }), policy.CodeThresholdUnmet},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := policy.Open(tt.text, f.Operators)
			if policy.CodeOf(err) != tt.code || s != nil {
				t.Errorf("Open = %v, %v; want %s", s, err, tt.code)
			}
		})
	}
}

// DSSE asks readers to ignore fields they do not know and to read either
// base64 alphabet.
func TestOpenReadsForeignEnvelopes(t *testing.T) {
	f := policytest.New(t)
	text := fmt.Sprintf(`{"signatures":[{"sig":%q,"ext":{"a":[1]}}],"payload":%q,"payloadType":%q,"more":null}`,
		base64.URLEncoding.EncodeToString(mustEnvelope(t, f.Envelope).Signatures[0].Sig),
		base64.URLEncoding.EncodeToString(f.Payload), policy.PayloadType)
	if _, err := policy.Open([]byte(text), f.Operators); err != nil {
		t.Error(err)
	}
}

func mustEnvelope(t testing.TB, text []byte) *policy.Envelope {
	t.Helper()
	e, err := policy.ParseEnvelope(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestOpenRefusesUnusableTrust(t *testing.T) {
	f := policytest.New(t)
	for name, o := range map[string]policy.Operators{
		"nobody":         {},
		"nobody of none": {Threshold: 1},
		"threshold zero": {Threshold: 0, Keys: f.Operators.Keys},
		"threshold two":  {Threshold: 2, Keys: f.Operators.Keys},
		"one key twice":  {Threshold: 2, Keys: []policy.OperatorKey{f.Operators.Keys[0], {Name: "b", Algorithm: "ed25519", PublicKey: f.Operators.Keys[0].PublicKey}}},
	} {
		if _, err := policy.Open(f.Envelope, o); policy.CodeOf(err) != policy.CodeOperatorKeyInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOperatorsDigestVector(t *testing.T) {
	key := func(seed byte) crypto.Signer {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	}
	a, b, c := operatorKey(t, "a", key(1)), operatorKey(t, "b", key(2)), operatorKey(t, "c", key(3))
	o := policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{a, b, c}}
	digest := o.Digest()
	const want = "445d0a5ddf9fcb5664e0abc0211bdc0965784b5c922aa660e6b4ae95b586a957"
	if got := hex.EncodeToString(digest[:]); got != want {
		t.Errorf("digest = %s, want %s: machines in the field were launched with it", got, want)
	}
	renamed := b
	renamed.Name = "bob"
	for name, tt := range map[string]struct {
		o    policy.Operators
		same bool
	}{
		"order":              {policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{c, a, b}}, true},
		"names":              {policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{a, renamed, c}}, true},
		"threshold":          {policy.Operators{Threshold: 3, Keys: o.Keys}, false},
		"a key less":         {policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{a, b}}, false},
		"invalid: key twice": {policy.Operators{Threshold: 2, Keys: []policy.OperatorKey{a, b, b}}, false},
		"invalid: threshold": {policy.Operators{Threshold: 0, Keys: o.Keys}, false},
	} {
		if (tt.o.Digest() == digest) != tt.same {
			t.Errorf("%s: same digest = %t, want %t", name, !tt.same, tt.same)
		}
	}
}

func TestParseOperatorsIsStrict(t *testing.T) {
	f := policytest.New(t)
	good, err := json.Marshal(f.Operators)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := policy.ParseOperators(good); err != nil || o.Digest() != f.Operators.Digest() {
		t.Fatalf("%v", err)
	}
	weak := ecdsaKey(t, elliptic.P384())
	if _, err := policy.NewOperatorKey("weak", weak.Public()); policy.CodeOf(err) != policy.CodeKeyUnsupported {
		t.Errorf("P-384: %v", err)
	}
	tests := map[string]struct {
		old, with string
		code      policy.Code
	}{
		"unknown field":   {`"threshold"`, `"x":1,"threshold"`, policy.CodeUnknownField},
		"no threshold":    {`"threshold":1,`, ``, policy.CodeMissingField},
		"threshold zero":  {`"threshold":1`, `"threshold":0`, policy.CodeThresholdInvalid},
		"other algorithm": {`"ed25519"`, `"ecdsa-p256"`, policy.CodeOperatorKeyInvalid},
		"cut key":         {`"publicKey":"MCow`, `"publicKey":"`, policy.CodeOperatorKeyInvalid},
		"name":            {`"operator-1"`, `""`, policy.CodeNameInvalid},
		"no keys":         {`"keys":[`, `"keys":[],"was":[`, policy.CodeUnknownField},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(good), tt.old, tt.with, 1)
			if text == string(good) {
				t.Fatal("nothing was replaced")
			}
			_, err := policy.ParseOperators([]byte(text))
			if policy.CodeOf(err) != tt.code {
				t.Errorf("error = %v, want %s", err, tt.code)
			}
			var o policy.Operators
			if err := json.Unmarshal([]byte(text), &o); err == nil {
				t.Error("json.Unmarshal is laxer than ParseOperators")
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	fixture := policytest.New(f, policytest.WithOperators(2, 1))
	f.Add(fixture.Envelope)
	f.Add([]byte(`{"payloadType":"application/vnd.c8s.manifest.v1+json","payload":"e30=","signatures":[{"sig":"AA=="}]}`))
	f.Add([]byte(`{"payload":"","payload":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := policy.Open(text, fixture.Operators)
		if err != nil {
			if s != nil || policy.CodeOf(err) == "" {
				t.Fatalf("refusal without a code, or with a manifest: %v", err)
			}
			return
		}
		// The fuzzer has no key: whatever opens holds the signed payload.
		if !bytes.Equal(s.Payload, fixture.Payload) {
			t.Fatalf("opened a payload nobody signed: %q", s.Payload)
		}
	})
}
