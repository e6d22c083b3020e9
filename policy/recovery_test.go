// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// exampleWitness is the key of the seed of 32 ones, made with openssl and
// Python's hashlib after c2sp.org/signed-note and c2sp.org/tlog-cosignature.
const exampleWitness = "witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"

func witnessOf(t testing.TB, name string, seed byte) policy.Witness {
	t.Helper()
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	w, err := policy.NewWitness(name, "witness.example/"+name, public)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func recoveryOf(t testing.TB, threshold, n int) *policy.Recovery {
	t.Helper()
	r := &policy.Recovery{Threshold: threshold}
	for i := range n {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r.Keys = append(r.Keys, policy.RecoveryKey{Name: fmt.Sprintf("holder-%d", i+1), PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())})
	}
	return r
}

func TestWitnessKeysAreThoseOfC2SP(t *testing.T) {
	w := witnessOf(t, "w1", 1)
	if w.Key != exampleWitness {
		t.Errorf("key = %s, want %s", w.Key, exampleWitness)
	}
	k, err := w.Decode()
	if err != nil || k.Name != "witness.example/w1" || fmt.Sprintf("%x", k.Hash) != "0ad7d35e" {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := policy.NewWitness("w", "a+b", k.Public); err == nil {
		t.Error("a key name with a plus was written")
	}
}

func TestWitnessesAreReadStrictly(t *testing.T) {
	one, two := witnessOf(t, "w1", 1), witnessOf(t, "w2", 2)
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Witnesses, m.WitnessQuorum = []policy.Witness{one, two}, 2 }))
	if m := f.Manifest; len(m.Witnesses) != 2 || m.WitnessQuorum != 2 {
		t.Errorf("witnesses %+v, quorum %d", m.Witnesses, m.WitnessQuorum)
	}
	key := func(key string) func(*policy.Manifest) {
		return func(m *policy.Manifest) { m.Witnesses = []policy.Witness{{Name: "w", Key: key}} }
	}
	ofType := func(kind byte, n int) string {
		return base64.StdEncoding.EncodeToString(append([]byte{kind}, make([]byte, n)...))
	}
	for name, c := range map[string]struct {
		edit func(*policy.Manifest)
		code policy.Code
		path string
	}{
		"no key":            {key(""), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"no hash":           {key("w+AAAA"), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"another hash":      {key(strings.Replace(one.Key, "0ad7d35e", "0ad7d35f", 1)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"upper-case hash":   {key(strings.Replace(one.Key, "0ad7d35e", "0AD7D35E", 1)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"another name":      {key("x" + one.Key), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"nameless":          {key(strings.TrimPrefix(one.Key, "witness.example/w1")), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"name with a space": {key("a b+0ad7d35e+" + ofType(4, 32)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"log's key":         {key("w+00000000+" + ofType(1, 32)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"short":             {key("w+00000000+" + ofType(4, 31)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"long":              {key("w+00000000+" + ofType(4, 33)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"URL base64":        {key("w+00000000+" + strings.Repeat("_", 44)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"endless":           {key("w+00000000+" + strings.Repeat("A", 1000)), policy.CodeWitnessKeyInvalid, "$.witnesses[0].key"},
		"name":              {func(m *policy.Manifest) { m.Witnesses = []policy.Witness{{Name: "", Key: one.Key}} }, policy.CodeNameInvalid, "$.witnesses[0].name"},
		"name twice":        {func(m *policy.Manifest) { m.Witnesses = []policy.Witness{one, {Name: one.Name, Key: two.Key}} }, policy.CodeNameDuplicate, "$.witnesses[1].name"},
		"key twice":         {func(m *policy.Manifest) { m.Witnesses = []policy.Witness{one, {Name: "w2", Key: one.Key}} }, policy.CodeValueDuplicate, "$.witnesses[1].key"},
		"quorum":            {func(m *policy.Manifest) { m.Witnesses, m.WitnessQuorum = []policy.Witness{one}, 2 }, policy.CodeWitnessQuorum, "$.witnessQuorum"},
		"quorum of nobody":  {func(m *policy.Manifest) { m.WitnessQuorum = 1 }, policy.CodeWitnessQuorum, "$.witnessQuorum"},
		"too many": {func(m *policy.Manifest) {
			for range 65 {
				m.Witnesses = append(m.Witnesses, one)
			}
		}, policy.CodeListTooLong, "$.witnesses"},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, encodes(t, c.edit), c.code, c.path) })
	}
}

// encodes says why an edited sample cannot be written.
func encodes(t *testing.T, edit func(*policy.Manifest)) error {
	t.Helper()
	m, err := policy.Parse(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	edit(m)
	_, err = policy.Encode(m)
	return err
}

func TestRecoveryIsReadStrictly(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Recovery = recoveryOf(t, 2, 3) }))
	if r := f.Manifest.Recovery; r == nil || r.Threshold != 2 || len(r.Keys) != 3 {
		t.Errorf("recovery = %+v", r)
	} else if _, err := r.Keys[0].Public(); err != nil {
		t.Error(err)
	}
	key := func(raw []byte) func(*policy.Manifest) {
		return func(m *policy.Manifest) {
			m.Recovery = recoveryOf(t, 1, 1)
			m.Recovery.Keys[0].PublicKey = base64.StdEncoding.EncodeToString(raw)
		}
	}
	ones := bytes.Repeat([]byte{0xff}, 32)
	prime := bytes.Clone(ones) // 2^255-19: another encoding of 0
	prime[0], prime[31] = 0xed, 0x7f
	last := bytes.Clone(prime) // 2^255-20 is the largest there is, and of small order
	last[0] = 0xec
	const bad = "$.recovery.keys[0].publicKey"
	for name, c := range map[string]struct {
		edit func(*policy.Manifest)
		code policy.Code
		path string
	}{
		"nobody":          {func(m *policy.Manifest) { m.Recovery = &policy.Recovery{Threshold: 1} }, policy.CodeListEmpty, "$.recovery.keys"},
		"too many":        {func(m *policy.Manifest) { m.Recovery = recoveryOf(t, 2, 17) }, policy.CodeListTooLong, "$.recovery.keys"},
		"threshold zero":  {func(m *policy.Manifest) { m.Recovery = recoveryOf(t, 0, 2) }, policy.CodeThresholdInvalid, "$.recovery.threshold"},
		"threshold above": {func(m *policy.Manifest) { m.Recovery = recoveryOf(t, 3, 2) }, policy.CodeThresholdInvalid, "$.recovery.threshold"},
		"one in production": {func(m *policy.Manifest) {
			m.Production, m.Substrates[0].Simulated, m.Substrates[0].Collateral = true, false, required()
			m.Recovery = recoveryOf(t, 1, 2)
		}, policy.CodeProductionRecovery, "$.recovery.threshold"},
		"key of another size": {key(make([]byte, 31)), policy.CodeRecoveryKeyInvalid, bad},
		"zero":                {key(make([]byte, 32)), policy.CodeRecoveryKeyInvalid, bad},
		"one":                 {key(append([]byte{1}, make([]byte, 31)...)), policy.CodeRecoveryKeyInvalid, bad},
		"above the prime":     {key(prime), policy.CodeRecoveryKeyInvalid, bad},
		"minus one":           {key(last), policy.CodeRecoveryKeyInvalid, bad},
		"high bit":            {key(ones), policy.CodeRecoveryKeyInvalid, bad},
		"key twice": {func(m *policy.Manifest) {
			m.Recovery = recoveryOf(t, 2, 2)
			m.Recovery.Keys[1].PublicKey = m.Recovery.Keys[0].PublicKey
		}, policy.CodeValueDuplicate, "$.recovery.keys[1].publicKey"},
		"name twice": {func(m *policy.Manifest) {
			m.Recovery = recoveryOf(t, 2, 2)
			m.Recovery.Keys[1].Name = m.Recovery.Keys[0].Name
		}, policy.CodeNameDuplicate, "$.recovery.keys[1].name"},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, encodes(t, c.edit), c.code, c.path) })
	}
}

// Both are optional as a whole, and complete where they are.
func TestOptionalPartsAreComplete(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Recovery, m.Witnesses, m.WitnessQuorum = recoveryOf(t, 1, 1), []policy.Witness{witnessOf(t, "w1", 1)}, 1
	}))
	for _, c := range []struct {
		at   string
		part func(doc map[string]any) map[string]any
		keys []string
	}{
		{"$.recovery", func(doc map[string]any) map[string]any { return doc["recovery"].(map[string]any) }, []string{"threshold", "keys"}},
		{"$.recovery.keys[0]", func(doc map[string]any) map[string]any {
			return doc["recovery"].(map[string]any)["keys"].([]any)[0].(map[string]any)
		}, []string{"name", "publicKey"}},
		{"$.witnesses[0]", func(doc map[string]any) map[string]any { return doc["witnesses"].([]any)[0].(map[string]any) }, []string{"name", "key"}},
	} {
		for _, key := range append(c.keys, "extra") {
			var doc map[string]any
			if err := json.Unmarshal(f.Payload, &doc); err != nil {
				t.Fatal(err)
			}
			code := policy.CodeMissingField
			if key == "extra" {
				code, c.part(doc)[key] = policy.CodeUnknownField, 1
			} else {
				delete(c.part(doc), key)
			}
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			_, err = policy.Parse(text)
			wantProblem(t, err, code, c.at+"."+key)
		}
	}
	for _, key := range []string{"recovery", "witnesses", "witnessQuorum"} {
		_, err := policy.Parse(edited(t, func(doc map[string]any) { doc[key] = nil }))
		wantProblem(t, err, policy.CodeNull, "$."+key)
	}
}
