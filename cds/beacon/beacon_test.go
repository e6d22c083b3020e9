// SPDX-License-Identifier: Apache-2.0

package beacon_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/keys"
)

const domain = "c8s.test"

func now() time.Time { return time.Unix(1_800_000_000, 0) }

func key(t testing.TB, first byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	t.Helper()
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{first}, 32))
	return k, k.Public().(ed25519.PublicKey)
}

func good() beacon.Beacon {
	return beacon.Beacon{TrustDomain: domain, Time: now(), Period: 10 * time.Second, Checkpoint: bytes.Repeat([]byte{7}, 32), Clock: "host"}
}

func sign(t testing.TB, k ed25519.PrivateKey, edit func(*beacon.Beacon)) []byte {
	t.Helper()
	b := good()
	edit(&b)
	doc, err := beacon.Sign(k, b)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func unchanged(*beacon.Beacon) {}

func TestBeaconSaysWhatWasSigned(t *testing.T) {
	k, public := key(t, 1)
	for name, edit := range map[string]func(*beacon.Beacon){
		"all": unchanged, "no checkpoint": func(b *beacon.Beacon) { b.Checkpoint = nil },
		"half a second": func(b *beacon.Beacon) { b.Time, b.Period = b.Time.Add(time.Second/2), b.Period+time.Second/2 },
	} {
		want := good()
		edit(&want)
		got, err := beacon.Verify(sign(t, k, edit), public, domain, now(), time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !got.Time.Equal(now()) || got.Period != 10*time.Second || got.TrustDomain != domain || got.Clock != "host" || !bytes.Equal(got.Checkpoint, want.Checkpoint) {
			t.Errorf("%s: %+v", name, got)
		}
		if b := got.Bytes(); len(b) != 8+ed25519.SignatureSize || !bytes.Equal(b[8:], got.Signature) || b[7] != byte(now().Unix()) {
			t.Errorf("%s: bytes %x", name, b)
		}
	}
	unsigned := good()
	if unsigned.Bytes() != nil {
		t.Error("an unsigned beacon has bytes for evidence")
	}
}

func TestBeaconsAreRefusedEachByItsCode(t *testing.T) {
	k, public := key(t, 1)
	other, otherPublic := key(t, 2)
	doc := sign(t, k, unchanged)
	replace := func(old, with string) []byte {
		out := bytes.Replace(doc, []byte(old), []byte(with), 1)
		if bytes.Equal(out, doc) {
			t.Fatalf("no %s in %s", old, doc)
		}
		return out
	}
	for name, c := range map[string]struct {
		doc    []byte
		public ed25519.PublicKey
		domain string
		at     time.Duration
		code   string
	}{
		"another key":         {doc, otherPublic, domain, 0, beacon.CodeSignature},
		"no key":              {doc, nil, domain, 0, beacon.CodeSignature},
		"of another":          {sign(t, other, unchanged), public, domain, 0, beacon.CodeSignature},
		"another time":        {replace(`"time":18`, `"time":17`), public, domain, 0, beacon.CodeSignature},
		"another period":      {replace(`"period":10`, `"period":11`), public, domain, 0, beacon.CodeSignature},
		"another checkpoint":  {replace("0707", "0807"), public, domain, 0, beacon.CodeSignature},
		"no checkpoint":       {replace(strings.Repeat("07", 32), ""), public, domain, 0, beacon.CodeSignature},
		"a better clock":      {replace(`"host"`, `"tdx"`), public, domain, 0, beacon.CodeSignature},
		"a renamed domain":    {replace(domain, "c9s.test"), public, domain, 0, beacon.CodeSignature},
		"another domain":      {sign(t, k, func(b *beacon.Beacon) { b.TrustDomain = "evil.test" }), public, domain, 0, beacon.CodeTrustDomain},
		"no domain asked for": {doc, public, "", 0, beacon.CodeTrustDomain},
		"too old":             {doc, public, domain, time.Minute + 1, beacon.CodeStale},
		"from the future":     {doc, public, domain, -time.Minute - 1, beacon.CodeFuture},
		"another schema":      {replace("beacon/v1", "beacon/v2"), public, domain, 0, beacon.CodeMalformed},
		"a space":             {replace(`{"`, `{ "`), public, domain, 0, beacon.CodeMalformed},
		"an unknown member":   {replace(`{"`, `{"x":1,"`), public, domain, 0, beacon.CodeMalformed},
		"half a checkpoint":   {replace("0707", ""), public, domain, 0, beacon.CodeMalformed},
		"capital letters":     {replace(strings.Repeat("07", 32), strings.Repeat("0A", 32)), public, domain, 0, beacon.CodeMalformed},
		"a period of years":   {replace(`"period":10`, `"period":9223372036854775807`), public, domain, 0, beacon.CodeMalformed},
		"no period":           {replace(`"period":10`, `"period":0`), public, domain, 0, beacon.CodeMalformed},
		"a negative time":     {replace(`"time":18`, `"time":-18`), public, domain, 0, beacon.CodeMalformed},
		"a clock of words":    {replace(`"host"`, `"the host"`), public, domain, 0, beacon.CodeMalformed},
		"no clock":            {replace(`"host"`, `""`), public, domain, 0, beacon.CodeMalformed},
		"no signature":        {append(doc[:bytes.Index(doc, []byte(`"signature":"`))+13:bytes.Index(doc, []byte(`"signature":"`))+13], `"}`...), public, domain, 0, beacon.CodeMalformed},
		"nothing":             {nil, public, domain, 0, beacon.CodeMalformed},
	} {
		b, err := beacon.Verify(c.doc, c.public, c.domain, now().Add(c.at), time.Minute)
		if b != nil || attest.FailureCode(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	for name, at := range map[string]time.Duration{"as old as it may be": time.Minute, "a little ahead": -time.Minute} {
		if _, err := beacon.Verify(doc, public, domain, now().Add(at), time.Minute); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := beacon.Verify(doc, public, domain, now().Add(time.Second), 0); attest.FailureCode(err) != beacon.CodeStale {
		t.Errorf("an age of zero skips the check: %v", err)
	}
}

func TestNonsenseIsNotSigned(t *testing.T) {
	k, _ := key(t, 1)
	for name, edit := range map[string]func(*beacon.Beacon){
		"domain": func(b *beacon.Beacon) { b.TrustDomain = "A b" }, "time": func(b *beacon.Beacon) { b.Time = time.Time{} },
		"period": func(b *beacon.Beacon) { b.Period = time.Second - 1 }, "a week": func(b *beacon.Beacon) { b.Period = 7 * 24 * time.Hour },
		"checkpoint": func(b *beacon.Beacon) { b.Checkpoint = []byte{1} }, "clock": func(b *beacon.Beacon) { b.Clock = "" },
		"long clock": func(b *beacon.Beacon) { b.Clock = strings.Repeat("a", 33) },
	} {
		b := good()
		edit(&b)
		if doc, err := beacon.Sign(k, b); err == nil || doc != nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := beacon.Sign(nil, good()); err == nil {
		t.Error("signed without a key")
	}
}

// vector is one entry of docs/vectors/beacon.json.
type vector struct {
	Name       string `json:"name"`
	Document   string `json:"document"`
	Transcript string `json:"transcript"` // what is signed, in hexadecimal
	Bytes      string `json:"bytes"`      // what evidence commits to, in hexadecimal
}

func TestBeaconsMatchPublishedVectors(t *testing.T) {
	text, err := os.ReadFile("../../docs/vectors/beacon.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 2 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	var seed keys.Seed // of the first entry of keys.json
	for i := range seed {
		seed[i] = byte(i)
	}
	k, err := keys.Derive(seed, "c8s.example")
	if err != nil {
		t.Fatal(err)
	}
	public := k.Beacon.Public().(ed25519.PublicKey)
	for _, v := range vectors {
		b, err := beacon.Verify([]byte(v.Document), public, "c8s.example", now(), 1<<62)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		transcript, err := hex.DecodeString(v.Transcript)
		if err != nil || !ed25519.Verify(public, transcript, b.Signature) {
			t.Errorf("%s: another transcript was signed, %v", v.Name, err)
		}
		if got := hex.EncodeToString(b.Bytes()); got != v.Bytes {
			t.Errorf("%s: bytes %s", v.Name, got)
		}
		if again, err := beacon.Sign(k.Beacon, *b); err != nil || string(again) != v.Document {
			t.Errorf("%s: signed again it is %s, %v", v.Name, again, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k, public := key(f, 1)
	f.Add(sign(f, k, unchanged))
	f.Add(sign(f, k, func(b *beacon.Beacon) { b.Checkpoint = nil }))
	f.Fuzz(func(t *testing.T, doc []byte) {
		b, err := beacon.Verify(doc, public, domain, now(), time.Minute)
		if err != nil {
			return
		}
		if again, err := beacon.Sign(k, *b); err != nil || !bytes.Equal(again, doc) {
			t.Errorf("%q verifies and is signed as %q", doc, again)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k, _ := key(b, 1)
	for b.Loop() {
		sign(b, k, unchanged)
	}
}
