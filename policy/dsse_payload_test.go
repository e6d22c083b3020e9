// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestPayloadsOfOtherTypesNeverPassForEachOther(t *testing.T) {
	const kind = "application/vnd.example+json"
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := policy.NewOperatorKey("ops", public)
	if err != nil {
		t.Fatal(err)
	}
	trusted := policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{k}}
	text, err := policy.SignPayload(kind, []byte("x"), key)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := policy.OpenPayload(text, kind, len(text), trusted); err != nil || string(s.Payload) != "x" || len(s.Signers) != 1 {
		t.Errorf("%v, %v", s, err)
	}
	for _, other := range []string{policy.PayloadType, policy.DenyListPayloadType, "", kind + "2"} {
		if _, err := policy.OpenPayload(text, other, len(text), trusted); policy.CodeOf(err) != policy.CodePayloadType {
			t.Errorf("opened as %q: %v", other, err)
		}
	}
	for _, refused := range []string{policy.PayloadType, policy.DenyListPayloadType, ""} {
		if _, err := policy.SignPayload(refused, []byte("x"), key); policy.CodeOf(err) != policy.CodePayloadType {
			t.Errorf("signed as %q: %v", refused, err)
		}
	}
	if _, err := policy.Open(text, trusted); policy.CodeOf(err) != policy.CodePayloadType {
		t.Errorf("opened as a manifest: %v", err)
	}
	if _, err := policy.OpenPayload(text, kind, len(text)-1, trusted); policy.CodeOf(err) != policy.CodeTooLarge {
		t.Errorf("above the limit: %v", err)
	}
}

func TestSignaturesAreAddedToPayloadsOfOneType(t *testing.T) {
	const kind = "application/vnd.example+json"
	operators, keys := policytest.Operators(t, 2, 2)
	text, err := policy.SignPayload(kind, []byte("x"), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.OpenPayload(text, kind, len(text), operators); policy.CodeOf(err) != policy.CodeThresholdUnmet {
		t.Errorf("with one signature: %v", err)
	}
	both, err := policy.AddPayloadSignature(text, kind, len(text), keys[1])
	if err != nil {
		t.Fatal(err)
	}
	if s, err := policy.OpenPayload(both, kind, len(both), operators); err != nil || string(s.Payload) != "x" || len(s.Signers) != 2 {
		t.Errorf("with two: %+v, %v", s, err)
	}
	manifest := policytest.New(t).Envelope
	for name, c := range map[string]struct {
		envelope []byte
		kind     string
	}{"another type": {text, kind + "2"}, "a manifest": {manifest, policy.PayloadType}, "a manifest as another": {manifest, kind}} {
		if _, err := policy.AddPayloadSignature(c.envelope, c.kind, len(c.envelope), keys[1]); policy.CodeOf(err) != policy.CodePayloadType {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := policy.AddPayloadSignature(text, kind, len(text)-1, keys[1]); policy.CodeOf(err) != policy.CodeTooLarge {
		t.Errorf("above the limit: %v", err)
	}
}
