// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

var update = flag.Bool("update", false, "make the sample of docs/vectors anew") //nolint:gochecknoglobals // a flag of this test

// vectors reads a file of docs/vectors.
func vectors[T any](t testing.TB, name string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(read(t, filepath.Join("../../docs/vectors", name)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorsOfTranscripts(t *testing.T) {
	for _, v := range vectors[[]struct {
		Name, Purpose, Nonce, Exporter, SPKIHash, HPKEHash, ClaimsHash, GPUHash, Beacon, ReportData string
	}](t, "transcript.json") {
		tr := transcript{
			v.Purpose, unhex(t, v.Nonce), unhex(t, v.Exporter), unhex(t, v.SPKIHash), unhex(t, v.HPKEHash),
			unhex(t, v.ClaimsHash), unhex(t, v.GPUHash), unhex(t, v.Beacon),
		}
		if got := hexOf(tr.reportData()); got != v.ReportData {
			t.Errorf("%s: %s, want %s", v.Name, got, v.ReportData)
		}
	}
}

func TestVectorsOfWorkloads(t *testing.T) {
	var v struct {
		Signers   []operatorKey
		Workloads []struct {
			Entry  workload
			Digest string
		}
	}
	if err := strictJSON(read(t, "../../docs/vectors/workload.json"), &v); err != nil {
		t.Fatal(err)
	}
	for i := range v.Workloads {
		w := &v.Workloads[i]
		if got, err := w.Entry.digest(v.Signers); err != nil || got != w.Digest {
			t.Errorf("%s: %s, want %s; %v", w.Entry.Name, got, w.Digest, err)
		}
	}
	if _, err := (&workload{Name: "x", Images: []image{{Signers: []string{"nobody"}}}}).digest(v.Signers); err == nil {
		t.Error("a signer that the manifest does not have has a key")
	}
}

type evidenceVectors struct {
	Accepted, Refused []struct{ Name, CBOR, Hash string }
}

func TestVectorsOfEvidence(t *testing.T) {
	v := vectors[evidenceVectors](t, "cmw.json")
	for _, c := range v.Accepted {
		if e, err := parseEvidence(unhex(t, c.CBOR)); err != nil || e.hash != digestPrefix+c.Hash {
			t.Errorf("%s: %v, %+v", c.Name, err, e)
		}
	}
	for _, c := range v.Refused {
		// What belongs to which TEE is no matter to a program that knows one.
		if e, err := parseEvidence(unhex(t, c.CBOR)); c.CBOR != "" && err == nil && e.Type == typeSNP && !strings.Contains(c.Name, "event log") {
			t.Errorf("%s: read", c.Name)
		}
	}
}

func TestVectorsOfBundles(t *testing.T) {
	for _, v := range vectors[[]struct{ Name, Bundle, Digest, Refused string }](t, "bundle.json") {
		var b bundle
		err := oneEncoding([]byte(v.Bundle), &b)
		if v.Digest != "" && (err != nil || digestOf([]byte(v.Bundle)) != v.Digest) {
			t.Errorf("%s: %v, digest %s, want %s", v.Name, err, digestOf([]byte(v.Bundle)), v.Digest)
		}
		if v.Refused == "one value has one encoding" && err == nil {
			t.Errorf("%s: read", v.Name)
		}
	}
}

func TestVectorsOfBeacons(t *testing.T) {
	for _, v := range vectors[[]struct{ Name, Document, Transcript string }](t, "beacon.json") {
		b, err := parseBeacon([]byte(v.Document))
		if err != nil || hexOf(b.signed()) != v.Transcript {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

type logVectors struct {
	Origin, VKey, Checkpoint string
	Entries                  []struct{ Entry, Leaf, Root string }
	Files                    map[string]string
	Witness                  struct{ VKey, Cosigned string }
	Refused                  []struct{ Name, Entry string }
}

func TestVectorsOfTheLog(t *testing.T) {
	v, l := vectors[logVectors](t, "log.json"), &transparencyLog{}
	for i, e := range v.Entries {
		if err := l.append([]byte(e.Entry)); err != nil {
			t.Fatal(err)
		}
		root, err := l.root(int64(i + 1))
		if leaf := tlog.RecordHash([]byte(e.Entry)); err != nil || hexOf(leaf[:]) != e.Leaf || hexOf(root[:]) != e.Root {
			t.Errorf("entry %d: %v, leaf %x, root %x", i, err, leaf, root)
		}
	}
	a := &audit{bundle: &bundle{Log: v.VKey, TrustDomain: strings.TrimSuffix(v.Origin, "/c8s/log")}}
	root, _ := l.root(int64(len(v.Entries)))
	for _, signed := range []string{v.Checkpoint, v.Witness.Cosigned} {
		if size, got, err := a.openCheckpoint([]byte(signed)); err != nil || size != int64(len(v.Entries)) || got != root {
			t.Errorf("checkpoint: %v, %d entries, root %s", err, size, got)
		}
	}
	w, err := newWitness(v.Witness.VKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open([]byte(v.Witness.Cosigned), note.VerifierList(w)); err != nil {
		t.Errorf("cosignature: %v", err)
	}
	for _, r := range v.Refused {
		if e, err := parseEntry([]byte(r.Entry)); err == nil {
			t.Errorf("%s: read as %+v", r.Name, e)
		}
	}
}

// sampleDir has all documents of one certificate, as its README says.
const sampleDir = "../../docs/vectors/certificate"

// TestSample judges the certificate of the documentation, and with -update
// makes a new one.
func TestSample(t *testing.T) {
	if *update {
		makeSample(t)
	}
	at := strings.TrimSpace(string(read(t, filepath.Join(sampleDir, "at"))))
	if out, code := judge(t, sampleDir, "-at", at, "-beacon", "1m"); code != exitGood {
		t.Errorf("exit code %d, want %d\n%s", code, exitGood, out)
	}
}

func makeSample(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(w.Enrol(), nil)
	w.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	w.publish(func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	dir := t.TempDir()
	w.mirror(dir, pod)
	if err := os.Remove(filepath.Join(dir, "manifest.signed.json")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "at"), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"))
	if err := errors.Join(os.RemoveAll(sampleDir), os.CopyFS(sampleDir, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
}

// The documents are whatever whoever is between wants them to be.
func FuzzDocuments(f *testing.F) {
	for _, c := range vectors[evidenceVectors](f, "cmw.json").Accepted {
		f.Add(unhex(f, c.CBOR))
	}
	log := vectors[logVectors](f, "log.json")
	for _, e := range log.Entries {
		f.Add([]byte(e.Entry))
	}
	f.Add([]byte(log.Checkpoint))
	for _, v := range vectors[[]struct{ Document string }](f, "beacon.json") {
		f.Add([]byte(v.Document))
	}
	f.Add([]byte(`{"evidence":"oA==","transcript":{"purpose":"enrol/node"}}`))
	f.Add([]byte(`{"threshold":1,"keys":[{"name":"a","algorithm":"ed25519","publicKey":"MCowBQYDK2VwAyEAu+hijao4PcsNlzpfieTqPLQWN+ncTkqlT7KfAmijklY="}]}`))
	f.Add([]byte(`{"payloadType":"` + manifestType + `","payload":"e30=","signatures":[{"keyid":"","sig":"AAAA"}]}`))
	f.Add(read(f, "../../docs/manifest.example.json"))
	f.Add([]byte(`{"a":{"b":1,"B":2}}`))
	f.Add(bytes.Repeat([]byte{2}, reportSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1_800_000_000, 0)
		if e, err := parseEvidence(b); err == nil {
			_ = e.verify(transcript{}, now)
		}
		value := evidence{Type: typeSNP, evidenceValue: evidenceValue{Report: b, Certs: [][]byte{b, b, b}}}
		if value.verify(transcript{}, now) == nil {
			t.Error("evidence without a chain is good")
		}
		var o operators
		if strictJSON(b, &o) == nil {
			if keys, err := o.parse(); err == nil && len(keys) < o.Threshold {
				t.Errorf("%d keys reach the threshold %d", len(keys), o.Threshold)
			}
		}
		if _, err := openManifest(b, o); err == nil {
			t.Error("a manifest that nobody signed is good")
		}
		if _, err := parseEntry(b); err == nil && !json.Valid(b) {
			t.Error("an entry that is not JSON")
		}
		_, _, _ = parseCheckpoint(string(b), "c8s.example/c8s/log")
		_, _ = parseClaims(b)
		_, _ = parseBeacon(b)
		_, _ = parseEndorsement(b)
		_, _ = previousOf(b)
		_, _ = newWitness(string(b))
		_ = strictJSON(b, &manifest{})
		_ = strictJSON(b, &evidenceDocument{})
		_ = asText(b) + string(rune(asByte(b)))
	})
}
