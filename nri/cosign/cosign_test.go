// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/policy"
)

// publisher signs as the cosign tool does.
type publisher struct {
	name string
	key  crypto.Signer
}

func newPublisher(t testing.TB, name, algorithm string) publisher {
	t.Helper()
	if algorithm == "ed25519" {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return publisher{name, key}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publisher{name, key}
}

func (p publisher) public() cosign.Key {
	return cosign.Key{ID: policy.Digest(p.name), Public: p.key.Public()}
}

func (p publisher) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	digest, opts := message, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := p.key.(*ecdsa.PrivateKey); ok {
		sum := sha256.Sum256(message)
		digest, opts = sum[:], crypto.SHA256
	}
	sig, err := p.key.Sign(rand.Reader, digest, opts)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func simplePayload(reference, digest, kind string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, reference, digest, kind)
}

func (p publisher) simple(t testing.TB, reference string, digest policy.Digest) cosign.Signature {
	payload := simplePayload(reference, string(digest), "cosign container image signature")
	return cosign.Signature{Payload: payload, Signature: p.sign(t, payload)}
}

func (p publisher) bundle(t testing.TB, predicate string, digest policy.Digest) cosign.Signature {
	t.Helper()
	const kind = "application/vnd.in-toto+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(string(digest), "sha256:"), predicate)
	sig := p.sign(t, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement))
	raw, err := json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"dsseEnvelope": map[string]any{
			"payload": base64.StdEncoding.EncodeToString([]byte(statement)), "payloadType": kind,
			"signatures": []any{map[string]string{"sig": base64.StdEncoding.EncodeToString(sig)}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cosign.Signature{Payload: raw, Bundle: true}
}

const predicateSign = "https://sigstore.dev/cosign/sign/v1"

func TestVerify(t *testing.T) {
	digest := policy.DigestOf([]byte("a manifest"))
	for _, algorithm := range []string{"ecdsa", "ed25519"} {
		alice, mallory := newPublisher(t, "alice", algorithm), newPublisher(t, "mallory", algorithm)
		keys := []cosign.Key{newPublisher(t, "bob", "ecdsa").public(), alice.public()}
		cut := alice.simple(t, "example.org/app", digest)
		cut.Payload = append([]byte(" "), cut.Payload...)
		odd := simplePayload("example.org/app", string(digest), "atomic container signature")
		for name, tc := range map[string]struct {
			in   cosign.Signature
			want cosign.Claim
			err  string
		}{
			"a payload":                   {in: alice.simple(t, "example.org/app", digest), want: cosign.Claim{Signer: "alice", Manifest: digest, Repository: "example.org/app"}},
			"a payload with a tag":        {in: alice.simple(t, "example.org/app:1", digest), want: cosign.Claim{Signer: "alice", Manifest: digest, Repository: "example.org/app"}},
			"a short name":                {in: alice.simple(t, "nginx", digest), want: cosign.Claim{Signer: "alice", Manifest: digest, Repository: "index.docker.io/library/nginx"}},
			"a bundle":                    {in: alice.bundle(t, predicateSign, digest), want: cosign.Claim{Signer: "alice", Manifest: digest}},
			"another's payload":           {in: mallory.simple(t, "example.org/app", digest), err: cosign.ErrNoKey.Error()},
			"another's bundle":            {in: mallory.bundle(t, predicateSign, digest), err: cosign.ErrNoKey.Error()},
			"a changed payload":           {in: cut, err: cosign.ErrNoKey.Error()},
			"another type of payload":     {in: cosign.Signature{Payload: odd, Signature: alice.sign(t, odd)}, err: "type is"},
			"an attestation, no approval": {in: alice.bundle(t, "https://slsa.dev/provenance/v1", digest), err: "predicateType is"},
			"no digest":                   {in: alice.simple(t, "example.org/app", "sha256:zz"), err: "no digest"},
			"an unreadable reference":     {in: alice.simple(t, "UPPER CASE", digest), err: "reading the reference"},
			"a payload given as a bundle": {in: cosign.Signature{Payload: alice.simple(t, "a.b/c", digest).Payload, Bundle: true}, err: "not of a Sigstore bundle"},
			"no signature":                {in: cosign.Signature{Payload: simplePayload("a.b/c", string(digest), "cosign container image signature")}, err: cosign.ErrNoKey.Error()},
			"too long":                    {in: cosign.Signature{Payload: make([]byte, 1<<20)}, err: "at most"},
		} {
			t.Run(algorithm+"/"+name, func(t *testing.T) {
				got, err := cosign.Verify(tc.in, keys)
				if tc.err != "" {
					if err == nil || !strings.Contains(err.Error(), tc.err) || got != (cosign.Claim{}) {
						t.Errorf("got %+v, %v; want an error with %q", got, err, tc.err)
					}
					return
				}
				if err != nil || got != tc.want {
					t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
				}
			})
		}
		if _, err := cosign.Verify(alice.simple(t, "example.org/app", digest), nil); !errors.Is(err, cosign.ErrNoKey) {
			t.Errorf("without keys: %v", err)
		}
	}
}

// Whatever a registry sends: nobody's signature gives no claim, and nothing
// panics.
func FuzzVerify(f *testing.F) {
	alice := newPublisher(f, "alice", "ecdsa")
	keys := []cosign.Key{alice.public()}
	digest := policy.DigestOf([]byte("a manifest"))
	simple, bundle := alice.simple(f, "example.org/app", digest), alice.bundle(f, predicateSign, digest)
	f.Add(simple.Payload, simple.Signature, false)
	f.Add(bundle.Payload, []byte(nil), true)
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{}}`), []byte("x"), true)
	f.Fuzz(func(t *testing.T, payload, sig []byte, isBundle bool) {
		claim, err := cosign.Verify(cosign.Signature{Payload: payload, Signature: sig, Bundle: isBundle}, keys)
		if err == nil && (claim.Manifest != digest || claim.Signer != "alice") {
			t.Errorf("claim %+v, which alice never made", claim)
		}
		if err != nil && claim != (cosign.Claim{}) {
			t.Errorf("an error and a claim: %v, %+v", err, claim)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	alice := newPublisher(b, "alice", "ecdsa")
	sig := alice.simple(b, "example.org/app", policy.DigestOf([]byte("a manifest")))
	keys := []cosign.Key{alice.public()}
	for b.Loop() {
		if _, err := cosign.Verify(sig, keys); err != nil {
			b.Fatal(err)
		}
	}
}
