// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestCountersignatureSaysWhatWasPutInForce(t *testing.T) {
	f := policytest.New(t)
	k := derive(t, keys.Seed{1}, policytest.TrustDomain)
	public := k.Countersign.Public().(ed25519.PublicKey)
	at := time.Unix(1_700_000_000, 0)
	first := f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "db"))
	for _, s := range []trust.Subject{trust.ManifestSubject(f.Signed), trust.DenyListSubject(first), trust.DenyListSubject(f.DenyList(t, first))} {
		envelope, err := trust.Countersign(k.Countersign, s, 7, at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := trust.VerifyCountersignature(envelope, public, s)
		if err != nil {
			t.Fatal(err)
		}
		if c.Subject != s || c.LogIndex != 7 || c.Time != at.Unix() {
			t.Errorf("%+v", c)
		}
	}
}

func TestCountersignaturesOfOthersAreRefused(t *testing.T) {
	f := policytest.New(t)
	k := derive(t, keys.Seed{1}, policytest.TrustDomain)
	public := k.Countersign.Public().(ed25519.PublicKey)
	subject, at := trust.ManifestSubject(f.Signed), time.Unix(1_700_000_000, 0)
	sign := func(key ed25519.PrivateKey) []byte {
		envelope, err := trust.Countersign(key, subject, 7, at)
		if err != nil {
			t.Fatal(err)
		}
		return envelope
	}
	payload := func(text string) []byte {
		envelope, err := policy.SignPayload(trust.CountersignatureType, []byte(text), k.Countersign)
		if err != nil {
			t.Fatal(err)
		}
		return envelope
	}
	otherType, err := policy.SignPayload("application/json", []byte("{}"), k.Countersign)
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*trust.Subject)) trust.Subject { s := subject; edit(&s); return s }
	for name, c := range map[string]struct {
		envelope []byte
		public   ed25519.PublicKey
		want     trust.Subject
		code     string
	}{
		"another version":  {sign(k.Countersign), public, with(func(s *trust.Subject) { s.Version++ }), trust.CodeCountersignatureForeign},
		"another digest":   {sign(k.Countersign), public, with(func(s *trust.Subject) { s.Digest = policytest.Digest("x") }), trust.CodeCountersignatureForeign},
		"another previous": {sign(k.Countersign), public, with(func(s *trust.Subject) { s.Previous = policytest.Digest("x") }), trust.CodeCountersignatureForeign},
		"another kind":     {sign(k.Countersign), public, with(func(s *trust.Subject) { s.Kind = trust.KindDenyList }), trust.CodeCountersignatureForeign},
		"another domain":   {sign(k.Countersign), public, with(func(s *trust.Subject) { s.TrustDomain = "x" }), trust.CodeCountersignatureForeign},
		"the beacon's key": {sign(k.Beacon), public, subject, string(policy.CodeThresholdUnmet)},
		"no key":           {sign(k.Countersign), nil, subject, trust.CodeCountersignature},
		"another type":     {otherType, public, subject, string(policy.CodePayloadType)},
		"an empty payload": {payload("{}"), public, subject, trust.CodeCountersignature},
		"spaces":           {payload("{ }"), public, subject, trust.CodeCountersignature},
		"an unknown field": {payload(`{"schema":"c8s.dev/countersignature/v1","x":1}`), public, subject, trust.CodeCountersignature},
		"nothing":          {nil, public, subject, string(policy.CodeSyntax)},
	} {
		_, err := trust.VerifyCountersignature(c.envelope, c.public, c.want)
		code := attest.FailureCode(err)
		if code == "" {
			code = string(policy.CodeOf(err))
		}
		if err == nil || code != c.code {
			t.Errorf("%s: code %q, want %q: %v", name, code, c.code, err)
		}
	}
}

func TestNonsenseIsNotCountersigned(t *testing.T) {
	k := derive(t, keys.Seed{1}, policytest.TrustDomain)
	subject := trust.ManifestSubject(policytest.New(t).Signed)
	for name, edit := range map[string]func(*trust.Subject){
		"kind": func(s *trust.Subject) { s.Kind = "x" }, "domain": func(s *trust.Subject) { s.TrustDomain = "" }, "version": func(s *trust.Subject) { s.Version = 0 },
		"digest": func(s *trust.Subject) { s.Digest = "" }, "previous": func(s *trust.Subject) { s.Previous = "x" },
	} {
		s := subject
		edit(&s)
		if _, err := trust.Countersign(k.Countersign, s, 0, time.Unix(1, 0)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := trust.Countersign(k.Countersign, subject, 0, time.Time{}); err == nil {
		t.Error("signed without a time")
	}
}

// Whatever the CDS's key signed, a countersignature says of the subject that was
// asked about, or nothing.
func FuzzVerifyCountersignature(f *testing.F) {
	fixture := policytest.New(f)
	k := derive(f, keys.Seed{1}, policytest.TrustDomain)
	public := k.Countersign.Public().(ed25519.PublicKey)
	subject := trust.ManifestSubject(fixture.Signed)
	envelope, err := trust.Countersign(k.Countersign, subject, 7, time.Unix(1_700_000_000, 0))
	if err != nil {
		f.Fatal(err)
	}
	opened, err := policy.ParseEnvelope(envelope)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(opened.Payload)
	f.Add(envelope)
	f.Fuzz(func(t *testing.T, text []byte) {
		signed, err := policy.SignPayload(trust.CountersignatureType, text, k.Countersign)
		if err != nil {
			return
		}
		for _, envelope := range [][]byte{text, signed} {
			if c, err := trust.VerifyCountersignature(envelope, public, subject); err == nil && (c.Subject != subject || c.Time <= 0) {
				t.Errorf("%q says %+v", envelope, c)
			}
		}
	})
}
