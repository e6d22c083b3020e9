// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

type world struct {
	*policytest.Fixture
	now    time.Time
	keys   *keys.Keys
	root   []byte
	bundle *trust.Bundle
	tee    *sim.TEE
}

// newWorld is a trust domain whose CDS was launched for its operators.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: time.Now()}
	plain := policytest.New(t)
	w.tee = simtest.New(t, "cds", func(o *sim.Options) { o.HostData = plain.Operators.Digest() })
	// The substrate is that of a machine for these operators, who sign it.
	m := *plain.Manifest
	simtest.Accept(w.tee)(&m)
	payload, err := policy.Encode(&m)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := policy.Sign(payload, plain.Keys...)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := policy.Open(envelope, plain.Operators)
	if err != nil {
		t.Fatal(err)
	}
	w.Fixture = &policytest.Fixture{Signed: signed, Operators: plain.Operators, Keys: plain.Keys}
	w.keys = derive(t, keys.Seed{1}, policytest.TrustDomain)
	if w.root, err = ca.NewRoot(policytest.TrustDomain, w.keys.Root, w.now); err != nil {
		t.Fatal(err)
	}
	if w.bundle, err = trust.NewBundle(policytest.TrustDomain, w.root, w.keys, w.Operators); err != nil {
		t.Fatal(err)
	}
	return w
}

func derive(t testing.TB, seed keys.Seed, domain string) *keys.Keys {
	t.Helper()
	k, err := keys.Derive(seed, domain)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) endorse(t testing.TB) *trust.Endorsement {
	t.Helper()
	e, err := trust.Endorse(context.Background(), tsm.New(w.tee), w.bundle, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestBundleHasOneEncoding(t *testing.T) {
	w := newWorld(t)
	text, err := w.bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.Parse(text)
	if err != nil || b.Digest() != policy.DigestOf(text) {
		t.Fatal(err)
	}
	log, err := b.LogVerifier()
	if err != nil || log.Name() != "c8s.test/c8s/log" {
		t.Errorf("log %v, %v", log, err)
	}
	if beacon, err := b.BeaconKey(); err != nil || !beacon.Equal(w.keys.Beacon.Public()) {
		t.Errorf("beacon: %v", err)
	}
	if counter, err := b.CountersignKey(); err != nil || !counter.Equal(w.keys.Countersign.Public()) {
		t.Errorf("countersign: %v", err)
	}
	if root, err := b.RootCertificate(); err != nil || string(root.Raw) != string(w.root) {
		t.Errorf("root: %v", err)
	}
}

func TestBadBundlesAreRefused(t *testing.T) {
	w := newWorld(t)
	other := derive(t, keys.Seed{2}, policytest.TrustDomain)
	for name, edit := range map[string]func(*trust.Bundle){
		"schema":                func(b *trust.Bundle) { b.Schema += "1" },
		"trust domain":          func(b *trust.Bundle) { b.TrustDomain = "other.test" },
		"no trust domain":       func(b *trust.Bundle) { b.TrustDomain = "" },
		"no root":               func(b *trust.Bundle) { b.Root = nil },
		"log of another domain": func(b *trust.Bundle) { b.Log = strings.Replace(b.Log, "c8s.test", "evil.test", 1) },
		"no log":                func(b *trust.Bundle) { b.Log = "" },
		"no beacon":             func(b *trust.Bundle) { b.Beacon = []byte{} },
		"beacon of another kind": func(b *trust.Bundle) {
			cert, err := b.RootCertificate()
			if err != nil {
				t.Fatal(err)
			}
			b.Beacon = cert.RawSubjectPublicKeyInfo
		},
		"one key for two uses": func(b *trust.Bundle) { b.Countersign = b.Beacon },
		"operators":            func(b *trust.Bundle) { b.Operators = strings.ToUpper(b.Operators) + "A" },
		"no operators":         func(b *trust.Bundle) { b.Operators = "" },
	} {
		bad := *w.bundle
		edit(&bad)
		if _, err := bad.Encode(); err == nil || bad.Digest() != "" {
			t.Errorf("%s: encoded", name)
		}
		text, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Parse(text); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
	if _, err := trust.NewBundle(policytest.TrustDomain, w.root, other, w.Operators); err == nil {
		t.Error("a bundle of one key and another's root")
	}
	if _, err := trust.NewBundle("other.test", w.root, w.keys, w.Operators); err == nil {
		t.Error("a bundle of one domain and another's root")
	}
	if _, err := trust.NewBundle(policytest.TrustDomain, w.root, w.keys, policy.Operators{}); err == nil {
		t.Error("a bundle for nobody")
	}
}

func TestBundleMatchesPublishedVector(t *testing.T) {
	text, err := os.ReadFile("../../docs/vectors/bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name   string        `json:"name"`
		Bundle string        `json:"bundle"`
		Digest policy.Digest `json:"digest"`
		Reason string        `json:"refused,omitempty"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for _, v := range vectors {
		b, err := trust.Parse([]byte(v.Bundle))
		if (err == nil) != (v.Reason == "") {
			t.Errorf("%s: %v", v.Name, err)
		}
		if err != nil {
			continue
		}
		accepted++
		if b.Digest() != v.Digest {
			t.Errorf("%s: digest %s", v.Name, b.Digest())
		}
		// keys.json has the seed these keys follow from.
		seed := keys.Seed{}
		for i := range seed {
			seed[i] = byte(i)
		}
		if beacon, err := b.BeaconKey(); err != nil || !beacon.Equal(derive(t, seed, "c8s.example").Beacon.Public()) {
			t.Errorf("%s: another beacon key, %v", v.Name, err)
		}
	}
	if accepted == 0 || len(vectors) < 4 {
		t.Errorf("%d vectors, %d accepted", len(vectors), accepted)
	}
}

func TestEndorsementOfTheOperatorsCDSIsAccepted(t *testing.T) {
	w := newWorld(t)
	text, err := w.endorse(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.ParseEndorsement(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{w.now.Add(-time.Minute), w.now, w.now.Add(trust.EndorsementLife - time.Minute)} {
		v, err := e.Verify(w.Manifest, w.Operators, at)
		if err != nil || !v.OK {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

func TestEndorsementsAreRefusedEachByItsCode(t *testing.T) {
	w := newWorld(t)
	strangers := policytest.New(t)
	foreign := newWorld(t)
	foreignTEE := *w
	foreignTEE.tee = simtest.New(t, "elsewhere", func(o *sim.Options) { o.HostData[0] ^= 1 })
	otherBundle := *w.bundle
	otherBundle.Operators = strings.Repeat("0", 64)
	lying := *w
	lying.bundle = &otherBundle
	node := *w
	nodeOnly := *w.Manifest
	for i := range nodeOnly.Substrates {
		nodeOnly.Substrates[i].Roles = []policy.Role{policy.RoleNode}
	}
	payload, err := policy.Encode(&nodeOnly)
	if err != nil {
		t.Fatal(err)
	}
	nodeManifest, err := policy.Parse(payload)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from      *world
		edit      func(*trust.Endorsement)
		manifest  *policy.Manifest
		operators policy.Operators
		at        time.Duration
		code      string
	}{
		"launched with other host data": {from: &foreignTEE, code: string(policy.CodeHostData)},
		"evidence for another bundle":   {from: w, edit: func(e *trust.Endorsement) { e.Bundle = *foreign.bundle }, code: "report-data"},
		"longer than endorsed":          {from: w, edit: func(e *trust.Endorsement) { e.NotAfter++; e.NotBefore++ }, code: "report-data"},
		"too long":                      {from: w, edit: func(e *trust.Endorsement) { e.NotAfter += 3600 }, code: trust.CodeDates},
		"backwards":                     {from: w, edit: func(e *trust.Endorsement) { e.NotAfter = e.NotBefore }, code: trust.CodeDates},
		"expired":                       {from: w, at: trust.EndorsementLife + time.Second, code: trust.CodeDates},
		"not yet":                       {from: w, at: -6 * time.Minute, code: trust.CodeDates},
		"a machine that is only a node": {from: &node, manifest: nodeManifest, code: "role"},
		"launched for others":           {from: w, operators: strangers.Operators, code: trust.CodeNotOperators},
		"a bundle that names others":    {from: &lying, code: trust.CodeNotOperators},
		"another trust domain":          {from: w, edit: func(e *trust.Endorsement) { e.Bundle.TrustDomain = "evil.test" }, code: trust.CodeTrustDomain},
		"no evidence":                   {from: w, edit: func(e *trust.Endorsement) { e.Evidence = nil }, code: "any"},
		"no operators":                  {from: w, operators: policy.Operators{Threshold: 1}, code: "any"},
		"a manifest by hand":            {from: w, manifest: &policy.Manifest{TrustDomain: policytest.TrustDomain}, code: "any"},
	} {
		e := c.from.endorse(t)
		if c.edit != nil {
			c.edit(e)
		}
		if c.manifest == nil {
			c.manifest = w.Manifest
		}
		if c.operators.Threshold == 0 {
			c.operators = w.Operators
		}
		v, err := e.Verify(c.manifest, c.operators, w.now.Add(c.at))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		code := attest.FailureCode(err)
		var refused *attest.RefusedError
		if errors.As(err, &refused) {
			code = refused.Code
			if v == nil || v.OK {
				t.Errorf("%s: refused without a verdict", name)
			}
		}
		if c.code != "any" && code != c.code {
			t.Errorf("%s: code %q, want %q: %v", name, code, c.code, err)
		}
	}
}

func TestOperatorsAreBoundByEitherTEE(t *testing.T) {
	o := policytest.New(t).Operators
	other := policytest.New(t).Operators
	d := o.Digest()
	hexed := strings.ToLower(hexOf(d[:]))
	for host, want := range map[string]bool{
		hexed: true, hexed + strings.Repeat("0", 32): true,
		hexed + strings.Repeat("0", 31) + "1": false, hexed + "00": false, hexed[:62]: false, "": false, strings.ToUpper(hexed): false,
	} {
		if got := trust.OperatorsBound(host, o); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if trust.OperatorsBound(hexed, other) {
		t.Error("bound to other operators")
	}
	none := policy.Operators{}.Digest()
	if trust.OperatorsBound(hexOf(none[:]), policy.Operators{}) {
		t.Error("bound to nobody")
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestAttesterThatFailsEndorsesNothing(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if e, err := trust.Endorse(ctx, broken{}, w.bundle, w.now); err == nil || e != nil {
		t.Error("endorsed")
	}
	bad := *w.bundle
	bad.Schema = ""
	if e, err := trust.Endorse(context.Background(), tsm.New(w.tee), &bad, w.now); err == nil || e != nil {
		t.Error("endorsed a bundle that nobody can read")
	}
}

type broken struct{}

func (broken) Attest(ctx context.Context, _ [64]byte) (*attest.Evidence, error) {
	return nil, ctx.Err()
}

func FuzzParse(f *testing.F) {
	w := newWorld(f)
	text, err := w.bundle.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := trust.Parse(text)
		if err != nil {
			return
		}
		if again, err := b.Encode(); err != nil || string(again) != string(text) {
			t.Errorf("%q is written as %q", text, again)
		}
	})
}

func FuzzParseEndorsement(f *testing.F) {
	w := newWorld(f)
	e := w.endorse(f)
	text, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	e.Evidence = []byte{1}
	if short, err := e.Encode(); err == nil {
		f.Add(short)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := trust.ParseEndorsement(text)
		if err != nil {
			return
		}
		if again, err := e.Encode(); err != nil || string(again) != string(text) {
			t.Errorf("%q is written as %q", text, again)
		}
		_, _ = e.Verify(w.Manifest, w.Operators, w.now) // must not panic
	})
}
