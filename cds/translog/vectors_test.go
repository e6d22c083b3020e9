// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const vectorFile = "../../docs/vectors/log.json"

var update = flag.Bool("update", false, "write "+vectorFile)

// logVectors is docs/vectors/log.json; byte strings are in hexadecimal.
type logVectors struct {
	Origin      string            `json:"origin"`
	Seed        string            `json:"seed"` // of the log's Ed25519 key
	VKey        string            `json:"vkey"`
	EmptyRoot   string            `json:"emptyRoot"`
	Entries     []vectorEntry     `json:"entries"` // of the log, from index 0 on
	Checkpoint  string            `json:"checkpoint"`
	Inclusion   vectorInclusion   `json:"inclusion"`
	Consistency vectorConsistency `json:"consistency"`
	Files       map[string]string `json:"files"` // by their path
	Witness     vectorWitness     `json:"witness"`
	Refused     []vectorRefused   `json:"refused"` // are no entries
}

type vectorEntry struct {
	Entry string `json:"entry"`
	Leaf  string `json:"leaf"`
	Root  string `json:"root"` // of the log that ends with this entry
}

type vectorInclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Proof []string `json:"proof"`
}

type vectorConsistency struct {
	From  int64    `json:"from"`
	To    int64    `json:"to"`
	Proof []string `json:"proof"`
}

type vectorWitness struct {
	Seed     string `json:"seed"`
	VKey     string `json:"vkey"`
	Time     int64  `json:"time"` // POSIX seconds
	Cosigned string `json:"cosigned"`
}

type vectorRefused struct {
	Name  string `json:"name"`
	Entry string `json:"entry"`
}

func hexHashes(hashes []Hash) []string {
	list := []string{}
	for _, h := range hashes {
		list = append(list, hex.EncodeToString(h[:]))
	}
	return list
}

func vectorSeed(first byte) []byte {
	return bytes.Repeat([]byte{first}, ed25519.SeedSize)
}

// makeVectors builds the vectors from the code.
func makeVectors(t *testing.T) logVectors {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	logKey, witnessKey := ed25519.NewKeyFromSeed(vectorSeed(1)), ed25519.NewKeyFromSeed(vectorSeed(2))
	v := logVectors{Origin: testOrigin, Seed: hex.EncodeToString(logKey.Seed()), Files: map[string]string{}}
	v.VKey = VerifierKey(testOrigin, logKey.Public().(ed25519.PublicKey))
	tree := NewTree()
	v.EmptyRoot = hexHashes([]Hash{tree.Root()})[0]
	s := newStorage()
	for _, e := range entries() {
		b, err := e.Marshal()
		must(err)
		next, d, err := tree.Append([][]byte{b})
		must(err)
		s.commit(t, d)
		tree = next
		hashes := hexHashes([]Hash{tlog.RecordHash(b), tree.Root()})
		v.Entries = append(v.Entries, vectorEntry{string(b), hashes[0], hashes[1]})
	}
	signer, err := NewSigner(testOrigin, logKey)
	must(err)
	signed, err := Sign(Checkpoint{testOrigin, tree.Size(), tree.Root()}, signer)
	must(err)
	v.Checkpoint = string(signed)
	proof, err := tree.ProveRecord(ctx, s, 5)
	must(err)
	v.Inclusion = vectorInclusion{5, tree.Size(), hexHashes(proof)}
	proof, err = tree.ProveTree(ctx, s, 6)
	must(err)
	v.Consistency = vectorConsistency{6, tree.Size(), hexHashes(proof)}
	for _, path := range []string{"tile/0/000.p/10", "tile/0/000.p/2", "tile/entries/000.p/2"} {
		data, err := tree.File(ctx, s, path)
		must(err)
		v.Files[path] = hex.EncodeToString(data)
	}
	witness, err := NewCosigner("witness.example/w1", witnessKey)
	must(err)
	at := testTime.Add(6 * time.Hour)
	log, err := NewVerifier(v.VKey)
	must(err)
	cosigned, err := AddCosignature(signed, testOrigin, log, witness, at)
	must(err)
	v.Witness = vectorWitness{hex.EncodeToString(witnessKey.Seed()), witness.VerifierKey(), at.Unix(), string(cosigned)}
	join := v.Entries[3].Entry
	v.Refused = []vectorRefused{
		{"white space", strings.Replace(join, ":", ": ", 1)},
		{"something after the object", join + "\n"},
		{"another order", `{"time":"2026-03-04T05:07:07Z","type":"join","evidence":"` + string(digest("replica")) + `"}`},
		{"an unknown field", strings.Replace(join, "}", `,"note":""}`, 1)},
		{"an unknown type", strings.Replace(join, "join", "release", 1)},
		{"a fraction of a second", strings.Replace(join, `07Z"`, `07.0Z"`, 1)},
		{"a leading zero", strings.Replace(v.Entries[1].Entry, `"version":1`, `"version":01`, 1)},
		{"an escape", strings.Replace(join, "join", `\u006aoin`, 1)},
	}
	return v
}

func TestLogMatchesPublishedVectors(t *testing.T) {
	v := makeVectors(t)
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, want.Bytes()) {
		t.Errorf("the vectors are now\n%s", want.Bytes())
	}
	for _, r := range v.Refused {
		if e, err := ParseEntry([]byte(r.Entry)); err == nil {
			t.Errorf("%s: %+v", r.Name, e)
		}
	}
}

// What was published once stays valid: read back with the functions of those
// who verify.
func TestPublishedVectorsVerify(t *testing.T) {
	published, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var v logVectors
	if err := json.Unmarshal(published, &v); err != nil {
		t.Fatal(err)
	}
	unhex := func(list []string) (hashes []Hash) {
		for _, s := range list {
			b, err := hex.DecodeString(s)
			if err != nil || len(b) != tlog.HashSize {
				t.Fatalf("%q is no hash", s)
			}
			hashes = append(hashes, Hash(b))
		}
		return hashes
	}
	log, err := NewVerifier(v.VKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenCheckpoint([]byte(v.Checkpoint), v.Origin, log)
	if err != nil || c.Size != int64(len(v.Entries)) {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := VerifyInclusion([]byte(v.Entries[v.Inclusion.Index].Entry), v.Inclusion.Index, *c, unhex(v.Inclusion.Proof)); err != nil {
		t.Error(err)
	}
	from := Checkpoint{v.Origin, v.Consistency.From, unhex([]string{v.Entries[v.Consistency.From-1].Root})[0]}
	if err := VerifyConsistency(from, *c, unhex(v.Consistency.Proof)); err != nil {
		t.Error(err)
	}
	witness, err := NewCosignerVerifier(v.Witness.VKey)
	if err != nil {
		t.Fatal(err)
	}
	if got := Cosignatures([]byte(v.Witness.Cosigned), []*CosignerVerifier{witness}); len(got) != 1 || got[0].Time.Unix() != v.Witness.Time {
		t.Errorf("%+v", got)
	}
}
