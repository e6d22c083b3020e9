// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package operatorkey_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey/hsmtest"
	"github.com/c8s-dev/c8s/policy"
)

// ring is a Ring whose environment and warnings the test sees.
func ring(t *testing.T, pin ...string) (*operatorkey.Ring, *bytes.Buffer) {
	var warnings bytes.Buffer
	r := &operatorkey.Ring{Warn: &warnings, LookupEnv: func(name string) (string, bool) {
		if name != operatorkey.PINVariable || len(pin) == 0 {
			return "", false
		}
		return pin[0], true
	}}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, &warnings
}

// signsFor checks that what the key signs counts as its owner's signature.
func signsFor(t *testing.T, key crypto.Signer, owner policy.OperatorKey) {
	t.Helper()
	const payloadType = "application/vnd.c8s.test"
	envelope, err := policy.SignPayload(payloadType, []byte("payload"), key)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := policy.OpenPayload(envelope, payloadType, 1<<20, policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{owner}})
	if err != nil || strings.Join(opened.Signers, " ") != owner.Name {
		t.Errorf("opened %v, %v; want it signed by %s", opened, err, owner.Name)
	}
}

func TestKeysOnATokenSign(t *testing.T) {
	for name, key := range map[string]hsmtest.Key{
		"ecdsa":            {Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256},
		"ed25519":          {Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmEd25519},
		"without an id":    {Label: "al ice", Algorithm: policy.AlgorithmECDSAP256},
		"a PIN every time": {Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256, LoginEachTime: true},
	} {
		t.Run(name, func(t *testing.T) {
			token := hsmtest.New(t)
			token.Generate(key)
			r, warnings := ring(t)
			owner, err := r.Operator("alice=" + token.URI(key.Label))
			if err != nil {
				t.Fatal(err)
			}
			if owner.Algorithm != key.Algorithm {
				t.Errorf("the key is of algorithm %s, want %s", owner.Algorithm, key.Algorithm)
			}
			signer, err := r.Signer(token.URI(key.Label))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 { // r or s is short now and then
				signsFor(t, signer, owner)
			}
			if warnings.Len() > 0 {
				t.Errorf("warned %q", warnings)
			}
		})
	}
}

func TestOneRingOpensSeveralKeysAndTokens(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	token.Generate(hsmtest.Key{Label: "bob", ID: []byte{2}, Algorithm: policy.AlgorithmEd25519})
	token.AddToken("spare")
	spare := *token
	spare.Label = "spare"
	spare.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	r, _ := ring(t)
	refs := []string{token.URI("alice"), token.URI("bob"), spare.URI("alice")}
	signers, err := r.Signers(refs)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, signer := range signers {
		owner, err := r.Operator(refs[i])
		if err != nil {
			t.Fatal(err)
		}
		signsFor(t, signer, owner)
		seen[owner.PublicKey] = true
	}
	if len(seen) != len(refs) {
		t.Errorf("%d different keys, want %d", len(seen), len(refs))
	}
}

func TestTheNameOfAKeyOnATokenIsItsLabel(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	r, _ := ring(t)
	owner, err := r.Operator(token.URIWithoutPIN("alice")) // no PIN is needed for the public half
	if err != nil || owner.Name != "alice" {
		t.Errorf("operator %q, %v; want alice", owner.Name, err)
	}
}

func TestThePINComesFromAFileOrTheEnvironment(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	uri := token.URIWithoutPIN("alice")
	pinFile := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name, uri string
		env       []string
		want      string // in the error; empty: it opens
	}{
		{"file", uri + "&pin-source=" + token.PINFile, nil, ""},
		{"file URI", uri + "&pin-source=file:" + token.PINFile, nil, ""},
		{"file URI with authority", uri + "&pin-source=file://" + token.PINFile, nil, ""},
		{"file of another machine", uri + "&pin-source=file://example.org" + token.PINFile, nil, "another machine"},
		{"environment", uri, []string{hsmtest.PIN}, ""},
		{"the file wins", uri + "&pin-source=" + token.PINFile, []string{"wrong"}, ""},
		{"none", uri, nil, operatorkey.PINVariable},
		{"empty environment", uri, []string{""}, "one line"},
		{"two lines", uri + "&pin-source=" + pinFile("two", hsmtest.PIN+"\n"+hsmtest.PIN+"\n"), nil, "one line"},
		{"missing file", uri + "&pin-source=/nonexistent", nil, "no such file"},
		{"program", uri + "&pin-source=|/bin/cat", nil, "runs a program"},
		{"wrong", uri, []string{"wrong-" + hsmtest.PIN}, "CKR_PIN_INCORRECT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := ring(t, tt.env...)
			_, err := r.Signer(tt.uri)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), hsmtest.PIN):
				t.Errorf("the error repeats the PIN: %v", err)
			}
		})
	}
}

func TestAPINFileThatOthersMayReadIsWarnedOf(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	if err := os.Chmod(token.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	r, warnings := ring(t)
	if _, err := r.Signer(token.URI("alice")); err != nil || !strings.Contains(warnings.String(), "chmod 600") {
		t.Errorf("warned %q, %v", warnings, err)
	}
}

func TestKeysThatCannotBeUsedAreRefused(t *testing.T) {
	token := hsmtest.New(t)
	token.AddToken("twin")
	token.AddToken("twin")
	for _, key := range []hsmtest.Key{
		{Label: "twice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256},
		{Label: "twice", ID: []byte{2}, Algorithm: policy.AlgorithmECDSAP256},
		{Label: "wide", ID: []byte{3}, Algorithm: "p384"},
		{Label: "alone", ID: []byte{4}, Algorithm: policy.AlgorithmECDSAP256, WithoutPublic: true},
	} {
		token.Generate(key)
	}
	twin := *token
	twin.Label = "twin"
	absent := *token
	absent.Label = "absent"
	notAModule := *token
	notAModule.Module = token.PINFile
	tests := []struct{ name, uri, want string }{
		{"no such key", token.URI("eve"), "no private key of this name"},
		{"two keys of one name", token.URI("twice"), "several private keys"},
		{"wrong curve", token.URI("wide"), "neither P-256 nor Ed25519"},
		{"no public half", token.URI("alone"), "no public key"},
		{"two tokens of one name", twin.URI("alice"), "2 tokens have this name"},
		{"no such token", absent.URI("alice"), "none of the"},
		{"no such module", notAModule.URI("alice"), "no PKCS#11 library"},
		{"the public half", strings.Replace(token.URI("twice"), "?", ";id=%01;type=public?", 1), "cannot sign"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := ring(t)
			if _, err := r.Signer(tt.uri); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	r, _ := ring(t)
	if _, err := r.Signer(strings.Replace(token.URI("twice"), "?", ";id=%01?", 1)); err != nil {
		t.Errorf("the id does not tell two keys of one name apart: %v", err)
	}
}

func TestASignatureThatDoesNotVerifyIsNotReturned(t *testing.T) {
	for _, algorithm := range []string{policy.AlgorithmECDSAP256, policy.AlgorithmEd25519} {
		t.Run(algorithm, func(t *testing.T) {
			token := hsmtest.New(t)
			token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: algorithm, PublicOfAnother: true})
			r, _ := ring(t)
			signer, err := r.Signer(token.URI("alice"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := policy.SignPayload("x", []byte("y"), signer); err == nil || !strings.Contains(err.Error(), "does not verify") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Misuse of crypto.Signer must not reach the token as something it would sign.
func TestATokenSignsOnlyTheFormsThatOperatorsUse(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "p", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	token.Generate(hsmtest.Key{Label: "e", ID: []byte{2}, Algorithm: policy.AlgorithmEd25519})
	r, _ := ring(t)
	signers, err := r.Signers([]string{token.URI("p"), token.URI("e")})
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	for _, tt := range []struct {
		key     crypto.Signer
		message []byte
		hash    crypto.Hash
	}{
		{signers[0], digest, crypto.SHA384},
		{signers[0], digest[:31], crypto.SHA256},
		{signers[0], []byte("message"), crypto.Hash(0)},
		{signers[1], digest, crypto.SHA512},
	} {
		if sig, err := tt.key.Sign(nil, tt.message, tt.hash); err == nil {
			t.Errorf("%T signed with %v: %x", tt.key.Public(), tt.hash, sig)
		}
	}
}

func TestAClosedRingHasLoggedOut(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	r, _ := ring(t)
	if _, err := r.Signer(token.URI("alice")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	c := pkcs11.New(token.Module)
	defer c.Destroy()
	if err := c.Initialize(); err != nil {
		t.Errorf("the module was left running: %v", err)
	}
	if err := c.Finalize(); err != nil {
		t.Error(err)
	}
}

func TestPublicKeysOfATokenBecomePEM(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "alice", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	r, _ := ring(t)
	public, err := r.Public(token.URIWithoutPIN("alice"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := operatorkey.EncodePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "alice.pub")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := r.Public(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := x509.MarshalPKIXPublicKey(public)
	if b, err := x509.MarshalPKIXPublicKey(again); err != nil || !bytes.Equal(a, b) {
		t.Errorf("another key came back: %v", err)
	}
}
