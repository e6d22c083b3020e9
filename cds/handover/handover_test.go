// SPDX-License-Identifier: Apache-2.0

package handover_test

import (
	"bytes"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/internal/secret/secrettest"
	"github.com/c8s-dev/c8s/cds/keys"
)

const domain = "c8s.test"

func seed() keys.Seed { return keys.Seed([]byte("this seed is handed over to you!")) }

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func info(t testing.TB, domain string, nonce, exporter []byte) []byte {
	t.Helper()
	b, err := handover.Info(domain, nonce, exporter)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func recipient(t testing.TB) *handover.Recipient {
	t.Helper()
	r, err := handover.NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeedAndRootArriveAtTheirRecipientOnly(t *testing.T) {
	r := recipient(t)
	here := info(t, domain, fill(1, 32), fill(2, 32))
	enc, ct, err := handover.Wrap(r.PublicKey(), seed(), []byte("root"), here)
	if err != nil {
		t.Fatal(err)
	}
	if got, root, err := r.Open(here, enc, ct); err != nil || got != seed() || string(root) != "root" {
		t.Fatalf("%q, %v", root, err)
	}
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
	for name, c := range map[string]struct {
		r             *handover.Recipient
		info, enc, ct []byte
	}{
		"another key":              {recipient(t), here, enc, ct},
		"another domain":           {r, info(t, "evil.test", fill(1, 32), fill(2, 32)), enc, ct},
		"another nonce":            {r, info(t, domain, fill(3, 32), fill(2, 32)), enc, ct},
		"another session":          {r, info(t, domain, fill(1, 32), fill(3, 32)), enc, ct},
		"no context":               {r, nil, enc, ct},
		"another encapsulated key": {r, here, flip(enc, 0), ct},
		"changed seed":             {r, here, enc, flip(ct, 0)},
		"changed root":             {r, here, enc, flip(ct, 33)},
		"changed tag":              {r, here, enc, flip(ct, len(ct)-1)},
		"cut":                      {r, here, enc, ct[:len(ct)-1]},
		"nothing":                  {r, here, nil, nil},
	} {
		if got, root, err := c.r.Open(c.info, c.enc, c.ct); err == nil || got != (keys.Seed{}) || root != nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestWrapRefuses(t *testing.T) {
	public, here := recipient(t).PublicKey(), info(t, domain, fill(1, 32), fill(2, 32))
	for name, c := range map[string]struct {
		public, root, info []byte
		seed               keys.Seed
	}{
		"no seed":      {public, []byte("root"), here, keys.Seed{}},
		"no root":      {public, nil, here, seed()},
		"a huge root":  {public, fill(1, 9<<10), here, seed()},
		"no context":   {public, []byte("root"), nil, seed()},
		"no key":       {nil, []byte("root"), here, seed()},
		"half a key":   {public[:len(public)-1], []byte("root"), here, seed()},
		"a key of 255": {fill(0xff, len(public)), []byte("root"), here, seed()},
	} {
		if enc, ct, err := handover.Wrap(c.public, c.seed, c.root, c.info); err == nil || enc != nil || ct != nil {
			t.Errorf("%s: wrapped", name)
		}
	}
}

func TestContextsAreComplete(t *testing.T) {
	for name, c := range map[string]struct {
		domain          string
		nonce, exporter []byte
	}{
		"no domain": {"", fill(1, 32), fill(1, 32)}, "no nonce": {domain, nil, fill(1, 32)}, "short nonce": {domain, fill(1, 15), fill(1, 32)},
		"no exporter": {domain, fill(1, 32), nil}, "short exporter": {domain, fill(1, 32), fill(1, 31)},
	} {
		if b, err := handover.Info(c.domain, c.nonce, c.exporter); err == nil || b != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if bytes.Equal(info(t, "a", fill(1, 17), fill(1, 32)), info(t, "a", fill(1, 16), fill(1, 33))) {
		t.Error("fields run into each other")
	}
}

func TestEvidenceCommitsToTheKey(t *testing.T) {
	base := handover.Transcript([]byte("key"), fill(1, 32), fill(2, 32), fill(3, 32))
	if base.Purpose != "cds-join" || len(base.HPKEHash) != 32 {
		t.Errorf("%+v", base)
	}
	seen := map[[64]byte]bool{base.ReportData(): true}
	for _, other := range []attest.Transcript{
		handover.Transcript([]byte("kez"), fill(1, 32), fill(2, 32), fill(3, 32)),
		handover.Transcript([]byte("key"), fill(9, 32), fill(2, 32), fill(3, 32)),
		handover.Transcript([]byte("key"), fill(1, 32), fill(9, 32), fill(3, 32)),
		handover.Transcript([]byte("key"), fill(1, 32), fill(2, 32), nil),
	} {
		if seen[other.ReportData()] {
			t.Errorf("%+v has the report data of another", other)
		}
		seen[other.ReportData()] = true
	}
}

func TestSealedSeedOpensOnlyWhereItWasSealed(t *testing.T) {
	key, operators := [32]byte{1}, [32]byte{2}
	sealed, err := handover.SealSeed(key, domain, operators, seed())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := handover.OpenSeed(key, domain, operators, sealed); err != nil || got != seed() {
		t.Fatal(err)
	}
	again, err := handover.SealSeed(key, domain, operators, seed())
	if err != nil || bytes.Equal(again, sealed) {
		t.Error("sealing twice gives the same bytes", err)
	}
	edited := func(edit func(b []byte) []byte) []byte { return edit(bytes.Clone(sealed)) }
	for name, c := range map[string]struct {
		key       [32]byte
		domain    string
		operators [32]byte
		sealed    []byte
	}{
		"another machine": {[32]byte{9}, domain, operators, sealed},
		"no key":          {[32]byte{}, domain, operators, sealed},
		"another domain":  {key, "evil.test", operators, sealed},
		"no domain":       {key, "", operators, sealed},
		"other operators": {key, domain, [32]byte{9}, sealed},
		"another version": {key, domain, operators, edited(func(b []byte) []byte { b[0]++; return b })},
		"another nonce":   {key, domain, operators, edited(func(b []byte) []byte { b[1] ^= 1; return b })},
		"another seed":    {key, domain, operators, edited(func(b []byte) []byte { b[30] ^= 1; return b })},
		"cut":             {key, domain, operators, edited(func(b []byte) []byte { return b[:len(b)-1] })},
		"longer":          {key, domain, operators, edited(func(b []byte) []byte { return append(b, 0) })},
		"nothing":         {key, domain, operators, nil},
	} {
		if got, err := handover.OpenSeed(c.key, c.domain, c.operators, c.sealed); err == nil || got != (keys.Seed{}) {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := handover.SealSeed([32]byte{}, domain, operators, seed()); err == nil {
		t.Error("sealed under no key")
	}
	if _, err := handover.SealSeed(key, domain, operators, keys.Seed{}); err == nil {
		t.Error("sealed no seed")
	}
}

func TestRecipientIsNotShown(t *testing.T) {
	r := recipient(t)
	secrettest.Check(t, r, r.PublicKey()) // the private key has no bytes to look for; nothing of the struct is shown
}

func FuzzOpen(f *testing.F) {
	r := recipient(f)
	here := info(f, domain, fill(1, 32), fill(2, 32))
	enc, ct, err := handover.Wrap(r.PublicKey(), seed(), []byte("root"), here)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc, ct)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, e, c []byte) {
		if _, _, err := r.Open(here, e, c); err == nil && (!bytes.Equal(e, enc) || !bytes.Equal(c, ct)) {
			t.Error("opened what was not wrapped")
		}
	})
}

func FuzzOpenSeed(f *testing.F) {
	sealed, err := handover.SealSeed([32]byte{1}, domain, [32]byte{2}, seed())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Other processes that fuzz seal with other nonces.
		if got, err := handover.OpenSeed([32]byte{1}, domain, [32]byte{2}, b); err == nil && got != seed() {
			t.Error("opened what was not sealed")
		}
	})
}
