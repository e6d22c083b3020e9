// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const testOrigin = "prod.example/c8s/log"

// testKey is a key for tests: its seed is the name's SHA-256.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func testLog(t testing.TB, origin string) (note.Signer, note.Verifier) {
	t.Helper()
	key := testKey(origin)
	s, err := NewSigner(origin, key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(VerifierKey(origin, key.Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func testWitness(t testing.TB, name string) (*Cosigner, *CosignerVerifier) {
	t.Helper()
	c, err := NewCosigner(name, testKey(name))
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewCosignerVerifier(c.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return c, v
}

func sign(t testing.TB, c Checkpoint) []byte {
	t.Helper()
	s, _ := testLog(t, c.Origin)
	signed, err := Sign(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

var testCheckpoint = Checkpoint{Origin: testOrigin, Size: 20852163, Root: tlog.RecordHash([]byte("root"))}

func TestCheckpointsKeepTheirValues(t *testing.T) {
	_, v := testLog(t, testOrigin)
	for _, c := range []Checkpoint{testCheckpoint, {testOrigin, 0, NewTree().Root()}, {testOrigin, maxSize, testCheckpoint.Root}} {
		signed := sign(t, c)
		got, err := OpenCheckpoint(signed, testOrigin, v)
		if err != nil || *got != c {
			t.Errorf("%s: %+v, %v", signed, got, err)
		}
	}
}

func TestCheckpointsOfOthersAreRefused(t *testing.T) {
	_, v := testLog(t, testOrigin)
	other, otherVerifier := testLog(t, "other.example/c8s/log")
	witness, _ := testWitness(t, testOrigin)
	signed := sign(t, testCheckpoint)
	text := testCheckpoint.text()
	resigned := func(text string, by note.Signer) []byte {
		b, err := note.Sign(&note.Note{Text: text}, by)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                        {},
		"no signature":                 []byte(text),
		"another log":                  sign(t, Checkpoint{"other.example/c8s/log", 1, testCheckpoint.Root}),
		"another log's signature":      resigned(text, other),
		"a cosignature of the name":    resigned(text, timedSigner{witness, 1}),
		"an altered size":              bytes.Replace(signed, []byte("20852163"), []byte("20852164"), 1),
		"an altered signature":         flip(signed, len(signed)-20),
		"more than the limit":          append(bytes.Clone(signed), bytes.Repeat([]byte("— a AAAAAAAA\n"), 1+MaxNote/10)...),
		"something after":              append(bytes.Clone(signed), '\n'),
		"the signature of another one": bytes.Replace(sign(t, Checkpoint{testOrigin, 1, testCheckpoint.Root}), []byte("\n1\n"), []byte("\n2\n"), 1),
	} {
		if c, err := OpenCheckpoint(b, testOrigin, v); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	// The right key for the wrong log.
	ours, _ := testLog(t, testOrigin)
	if _, err := OpenCheckpoint(resigned("other.example/c8s/log\n1\n"+testCheckpoint.Root.String()+"\n", ours), testOrigin, v); err == nil {
		t.Error("the log's key signed for another origin")
	}
	if _, err := OpenCheckpoint(signed, "other.example/c8s/log", v); err == nil {
		t.Error("a checkpoint of another origin than asked for")
	}
	if _, err := OpenCheckpoint(resigned(text, other), testOrigin, otherVerifier); err == nil {
		t.Error("a checkpoint signed by another log")
	}
}

// The log's key signed all of these; they are refused nevertheless.
func TestOtherSpellingsOfACheckpointAreRefused(t *testing.T) {
	s, v := testLog(t, testOrigin)
	root := testCheckpoint.Root.String()
	unused := root[:42] + string(root[42]+1) + "="
	if raw, err := base64.StdEncoding.DecodeString(unused); err != nil || Hash(raw) != testCheckpoint.Root {
		t.Fatalf("%s is not another spelling of %s", unused, root)
	}
	for name, text := range map[string]string{
		"extension line":     testOrigin + "\n5\n" + root + "\nmore\n",
		"two lines":          testOrigin + "\n5\n",
		"no origin":          "\n5\n" + root + "\n",
		"leading zero":       testOrigin + "\n05\n" + root + "\n",
		"sign":               testOrigin + "\n+5\n" + root + "\n",
		"negative":           testOrigin + "\n-5\n" + root + "\n",
		"more than 2^60":     testOrigin + "\n1152921504606846977\n" + root + "\n",
		"too large":          testOrigin + "\n9223372036854775808\n" + root + "\n",
		"hexadecimal root":   testOrigin + "\n5\n" + strings.Repeat("00", 32) + "\n",
		"short root":         testOrigin + "\n5\nAAAA\n",
		"unused bits":        testOrigin + "\n5\n" + unused + "\n",
		"root of no entries": testOrigin + "\n0\n" + root + "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := OpenCheckpoint(signed, testOrigin, v); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestSigningRefusesWhatOpeningWould(t *testing.T) {
	s, _ := testLog(t, testOrigin)
	for _, c := range []Checkpoint{{"other.example/c8s/log", 1, testCheckpoint.Root}, {testOrigin, -1, testCheckpoint.Root}, {testOrigin, 0, testCheckpoint.Root}, {}} {
		if signed, err := Sign(c, s); err == nil {
			t.Errorf("signed %s", signed)
		}
	}
	for _, origin := range []string{"", "a b", "a+b", "a\nb"} {
		if _, err := NewSigner(origin, testKey("x")); err == nil {
			t.Errorf("a signer of %q", origin)
		}
		if _, err := NewCosigner(origin, testKey("x")); err == nil {
			t.Errorf("a cosigner %q", origin)
		}
	}
	if _, err := NewSigner(testOrigin, nil); err == nil {
		t.Error("a signer without a key")
	}
	if _, err := NewCosigner(testOrigin, nil); err == nil {
		t.Error("a cosigner without a key")
	}
	if key := VerifierKey(testOrigin, nil); key != "" {
		t.Errorf("the key of nobody is %q", key)
	}
}

// The format, put together by hand from the specification.
func TestCosignaturesHaveTheSpecifiedFormat(t *testing.T) {
	const name = "witness.example/w1"
	c, v := testWitness(t, name)
	pub := testKey(name).Public().(ed25519.PublicKey)
	hash := sha256.Sum256(append([]byte(name+"\n\x04"), pub...))
	if v.KeyHash() != binary.BigEndian.Uint32(hash[:]) {
		t.Errorf("key hash %08x, want %x", v.KeyHash(), hash[:4])
	}
	_, log := testLog(t, testOrigin)
	signed, err := AddCosignature(sign(t, testCheckpoint), testOrigin, log, c, time.Unix(1679315147, 999))
	if err != nil {
		t.Fatal(err)
	}
	body := "cosignature/v1\ntime 1679315147\n" + testCheckpoint.text()
	line := append(bytes.Clone(hash[:4]), 0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb)
	line = append(line, ed25519.Sign(testKey(name), []byte(body))...)
	want := string(sign(t, testCheckpoint)) + "— " + name + " " + base64.StdEncoding.EncodeToString(line) + "\n"
	if string(signed) != want {
		t.Errorf("got\n%swant\n%s", signed, want)
	}
}

func TestCosignaturesCountWhenTheyVerify(t *testing.T) {
	_, log := testLog(t, testOrigin)
	w1, v1 := testWitness(t, "witness.example/w1")
	w2, v2 := testWitness(t, "witness.example/w2")
	_, v3 := testWitness(t, "witness.example/w3")
	all := []*CosignerVerifier{v1, v2, v3}
	add := func(signed []byte, w *Cosigner, at time.Time) []byte {
		t.Helper()
		signed, err := AddCosignature(signed, testOrigin, log, w, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCheckpoint(signed, testOrigin, log); err != nil {
			t.Fatal(err)
		}
		return signed
	}
	signed := add(add(sign(t, testCheckpoint), w1, testTime), w2, testTime)
	later := add(signed, w1, testTime.Add(time.Hour))
	got := Cosignatures(later, all)
	if len(got) != 2 || got[0] != (Cosignature{"witness.example/w1", testTime.Add(time.Hour)}) || got[1] != (Cosignature{"witness.example/w2", testTime}) {
		t.Errorf("%+v", got)
	}
	if got := Cosignatures(signed, nil); got != nil {
		t.Errorf("of nobody: %+v", got)
	}
	// A bad signature of one witness does not hide the other's.
	bad := flip(signed, bytes.Index(signed, []byte("w1 "))+40)
	if got := Cosignatures(bad, all); len(got) != 1 || got[0].Name != "witness.example/w2" {
		t.Errorf("with a bad signature: %+v", got)
	}
	// Nor does a cosignature stand for another checkpoint.
	moved := bytes.Replace(signed, []byte("20852163"), []byte("20852164"), 1)
	if got := Cosignatures(moved, all); got != nil {
		t.Errorf("of another checkpoint: %+v", got)
	}
}

func TestOnlyTheLogsCheckpointsAreCosigned(t *testing.T) {
	_, log := testLog(t, testOrigin)
	w, _ := testWitness(t, "witness.example/w1")
	for name, signed := range map[string][]byte{
		"unsigned": []byte(testCheckpoint.text() + "\n"),
		"altered":  bytes.Replace(sign(t, testCheckpoint), []byte("20852163"), []byte("20852164"), 1),
		"other":    sign(t, Checkpoint{"other.example/c8s/log", 1, testCheckpoint.Root}),
	} {
		if out, err := AddCosignature(signed, testOrigin, log, w, testTime); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
	if _, err := AddCosignature(sign(t, testCheckpoint), testOrigin, log, w, time.Unix(-1, 0)); err == nil {
		t.Error("cosigned before 1970")
	}
}

func TestMergingTakesTheCosignaturesOfKnownWitnesses(t *testing.T) {
	_, log := testLog(t, testOrigin)
	w1, v1 := testWitness(t, "witness.example/w1")
	w2, v2 := testWitness(t, "witness.example/w2")
	stranger, _ := testWitness(t, "stranger.example")
	plain := sign(t, testCheckpoint)
	ours, err := AddCosignature(plain, testOrigin, log, w1, testTime)
	if err != nil {
		t.Fatal(err)
	}
	theirs := plain
	for _, w := range []*Cosigner{w2, stranger} {
		if theirs, err = AddCosignature(theirs, testOrigin, log, w, testTime); err != nil {
			t.Fatal(err)
		}
	}
	merged, err := MergeCosignatures(ours, theirs, testOrigin, log, []*CosignerVerifier{v1, v2})
	if err != nil {
		t.Fatal(err)
	}
	if got := Cosignatures(merged, []*CosignerVerifier{v1, v2}); len(got) != 2 || strings.Contains(string(merged), "stranger") {
		t.Errorf("%+v in %s", got, merged)
	}
	another := sign(t, Checkpoint{testOrigin, 1, testCheckpoint.Root})
	if _, err := MergeCosignatures(another, theirs, testOrigin, log, []*CosignerVerifier{v2}); err == nil {
		t.Error("merged into another checkpoint")
	}
}

func TestKeysOfAnotherKindAreNotWitnesses(t *testing.T) {
	w, _ := testWitness(t, "witness.example/w1")
	logKey := VerifierKey("witness.example/w1", testKey("witness.example/w1").Public().(ed25519.PublicKey))
	good := w.VerifierKey()
	for name, key := range map[string]string{
		"empty": "", "a log's key": logKey, "another hash": strings.Replace(good, "+", "+0", 1), "another name": "x" + good, "no name": good[strings.Index(good, "+"):],
		"upper case": strings.ToUpper(good), "cut": good[:len(good)-4], "something after": good + "\n",
	} {
		if _, err := NewCosignerVerifier(key); err == nil {
			t.Errorf("%s: %q", name, key)
		}
	}
	if _, err := NewVerifier(good); err == nil {
		t.Error("a witness's key is a log's")
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	_, log := testLog(f, testOrigin)
	w, v := testWitness(f, "witness.example/w1")
	signed := sign(f, testCheckpoint)
	cosigned, err := AddCosignature(signed, testOrigin, log, w, testTime)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(cosigned)
	f.Add(append(bytes.Clone(signed), "— x AAAAAAAA\n"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		Cosignatures(b, []*CosignerVerifier{v})
		c, err := OpenCheckpoint(b, testOrigin, log)
		if err != nil {
			return
		}
		if *c != testCheckpoint { // the only one the key ever signed
			t.Errorf("%+v from %q", c, b)
		}
	})
}

// parseCheckpoint alone sees bodies that no key signed.
func FuzzParseCheckpoint(f *testing.F) {
	f.Add(testCheckpoint.text())
	f.Add("a\n0\n" + NewTree().Root().String() + "\n")
	f.Add("a\n1\nAAAA\nmore\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCheckpoint(text); err == nil && (c.text() != text || c.Size < 0) {
			t.Errorf("%+v from %q", c, text)
		}
	})
}
