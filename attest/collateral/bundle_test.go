// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

func newKey(t testing.TB) (crypto.Signer, policy.Operators) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, operators(t, public)
}

func operators(t testing.TB, public crypto.PublicKey) policy.Operators {
	t.Helper()
	k, err := policy.NewOperatorKey("ops", public)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{k}}
}

func realItems(t testing.TB) []Item {
	t.Helper()
	dir := filepath.Join(evidenceDir(t), "tdx")
	paths, err := FilesIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	items, err := ReadItems(Recognised(paths)...)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func TestBundleRoundTripKeepsTheNewest(t *testing.T) {
	key, trusted := newKey(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := SealBundle(realItems(t), newFakeClock().Now(), key, p256)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []policy.Operators{trusted, operators(t, p256.Public())} {
		b, err := OpenBundle(text, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Items) != 6 || len(b.Signers) != 1 || !b.Created.Equal(newFakeClock().Now()) {
			t.Errorf("%d items, signers %v, created %s", len(b.Items), b.Signers, b.Created)
		}
		i, err := b.Get(t.Context(), QEIdentity())
		if err != nil || i.NextUpdate.Year() != 2026 || len(i.Certs) != 2 {
			t.Errorf("%v, %v", i.NextUpdate, err)
		}
		_, err = b.Get(t.Context(), milanVCEK(t))
		wantCode(t, err, CodeMissing)
	}
}

func TestBundleBySomeoneElseIsRefused(t *testing.T) {
	key, trusted := newKey(t)
	_, others := newKey(t)
	text, err := SealBundle(realItems(t), time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenBundle(text, others)
	wantCode(t, err, CodeBundleSignature)
	_, err = OpenBundle(text, policy.Operators{})
	wantCode(t, err, CodeBundleSignature)
	both := policy.Operators{Threshold: 2, Keys: append(append([]policy.OperatorKey{}, trusted.Keys...), others.Keys...)}
	both.Keys[1].Name = "other"
	_, err = OpenBundle(text, both)
	wantCode(t, err, CodeBundleSignature)
	_, err = SealBundle(realItems(t), time.Now())
	wantCode(t, err, CodeBundleSignature)
	manifest, err := policy.SignPayload("application/x", []byte("{}"), key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenBundle(manifest, trusted)
	wantCode(t, err, CodeBundleFormat)
}

func TestEveryChangedByteOfABundleIsRefused(t *testing.T) {
	key, trusted := newKey(t)
	items := realItems(t)
	text, err := SealBundle([]Item{items[0]}, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.ParseEnvelope(text)
	if err != nil {
		t.Fatal(err)
	}
	for n := range e.Payload {
		e.Payload[n] ^= 1
		changed, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBundle(changed, trusted); attest.FailureCode(err) != CodeBundleSignature {
			t.Fatalf("byte %d: %v", n, err)
		}
		e.Payload[n] ^= 1
	}
}

func TestSignedButWrongPayloadsAreRefused(t *testing.T) {
	key, trusted := newKey(t)
	items := realItems(t)
	good, err := SealBundle(items, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.ParseEnvelope(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p []byte) []byte{
		"not JSON": func([]byte) []byte { return []byte("x") },
		"unknown field": func(p []byte) []byte {
			return bytes.Replace(p, []byte(`{"version":1`), []byte(`{"more":1,"version":1`), 1)
		},
		"repeated key": func(p []byte) []byte {
			return bytes.Replace(p, []byte(`{"version":1`), []byte(`{"version":1,"version":1`), 1)
		},
		"other case": func(p []byte) []byte { return bytes.Replace(p, []byte(`"version"`), []byte(`"Version"`), 1) },
		"trailing":   func(p []byte) []byte { return append(bytes.Clone(p), ' ') },
		"version 2":  func(p []byte) []byte { return bytes.Replace(p, []byte(`"version":1`), []byte(`"version":2`), 1) },
		"later date": func(p []byte) []byte {
			return bytes.Replace(p, []byte(`"nextUpdate":"2026-`), []byte(`"nextUpdate":"2036-`), 1)
		},
		"other FMSPC": func(p []byte) []byte {
			return bytes.Replace(p, []byte("tcb-info:50806f"), []byte("tcb-info:50806e"), 1)
		},
		"no items": func([]byte) []byte {
			text, _ := json.Marshal(payload{Version: 1, Items: []payloadItem{}})
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := change(e.Payload)
			if bytes.Equal(changed, e.Payload) {
				t.Fatal("nothing was changed")
			}
			text, err := policy.SignPayload(PayloadType, changed, key)
			if err != nil {
				t.Fatal(err)
			}
			_, err = OpenBundle(text, trusted)
			if code := attest.FailureCode(err); code != CodeBundleFormat && code != CodeContent {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadFilesRecognisesWhatVendorsAndToolsWrite(t *testing.T) {
	dir := filepath.Join(evidenceDir(t), "tdx")
	for name, want := range map[string]int{
		"quote_v4_b0c06f_collateral.json":        4,
		"pcs_2026-03_tcb_info_50806f000000.json": 1, // chain beside it
		"pcs_2026-03_td_qe_identity.json":        1,
		"pcs_2026-03_pck_crl_platform.der":       1,
		"pcs_2026-03_root_ca_crl.der":            1,
		"pcs_2026-03_tcb_signing_chain.pem":      0,
		"../snp/milan_v2_vcek.der":               0, // completes the certificates
	} {
		got, err := ReadFiles(filepath.Join(dir, name))
		if err != nil || len(got) != want {
			t.Errorf("%s: %d, %v; want %d", name, len(got), err, want)
		}
		for _, c := range got {
			if _, err := ItemOf(c, time.Time{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if (c.Kind == attest.IntelTCBInfo || c.Kind == attest.IntelQEIdentity) && len(c.Certs) != 2 {
				t.Errorf("%s: %s has %d certificates", name, c.Kind, len(c.Certs))
			}
		}
	}
	lonely := filepath.Join(t.TempDir(), "tcb.json")
	if err := os.WriteFile(lonely, evidenceFile(t, "tdx/pcs_2026-03_tcb_info_50806f000000.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadFiles(lonely)
	wantCode(t, err, CodeFile)
	for _, name := range []string{"quote_v5.dat", "none"} {
		_, err := ReadFiles(filepath.Join(dir, name))
		wantCode(t, err, CodeFile)
	}
}

func TestCompleteAddsWhatIsMissing(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	bare := milanEvidence(t)
	full, report := Complete(t.Context(), s, bare, clock.Now())
	if len(full.Certs) != 3 || len(bare.Certs) != 0 || len(report.Added) != 2 {
		t.Fatalf("%d certificates, %s", len(full.Certs), report)
	}
	if len(report.Problems) != 1 || attest.FailureCode(report.Problems[0]) != CodeNotFound { // this vendor has no CRL
		t.Errorf("problems: %v", report.Problems)
	}
	// A VCEK for another TCB is replaced, the rest kept.
	wrong := *bare
	wrong.Certs = [][]byte{pemDER(t, "snp/milan_vcek.pem"), full.Certs[2], full.Certs[1]}
	again, report := Complete(t.Context(), s, &wrong, clock.Now())
	if len(report.Added) != 1 || !bytes.Equal(bytes.Join(again.Certs, nil), bytes.Join(full.Certs, nil)) {
		t.Errorf("%s", report)
	}
}

func pemDER(t testing.TB, name string) []byte {
	t.Helper()
	certs, err := parsePEMChain(evidenceFile(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestCompleteOfAQuoteStaplesCurrentCollateral(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	s := newStore(t, v.fetcher(t, clock), clock, "", nil)
	bare := &attest.Evidence{TEE: attest.TEETDX, Report: evidenceFile(t, "tdx/quote_v4_debug_td.dat")}
	full, report := Complete(t.Context(), s, bare, clock.Now())
	if len(full.Collateral) != 4 || len(report.Problems) != 0 || len(bare.Collateral) != 0 {
		t.Fatalf("%d stapled: %v", len(full.Collateral), report.Problems)
	}
	again, report := Complete(t.Context(), Layered{Now: clock.Now}, full, clock.Now())
	if len(again.Collateral) != 4 || len(report.Added) != 0 || len(report.Problems) != 0 {
		t.Errorf("complete evidence: %v", report.Problems)
	}
	crowded := *bare
	crowded.Collateral = make([]attest.Collateral, attest.MaxCollateral)
	again, report = Complete(t.Context(), s, &crowded, clock.Now())
	if len(again.Collateral) != attest.MaxCollateral || len(report.Problems) != 4 || attest.FailureCode(report.Problems[0]) != CodeLimit {
		t.Errorf("crowded evidence: %v", report.Problems)
	}
	_, report = Complete(t.Context(), s, &attest.Evidence{TEE: attest.TEETDX, Report: []byte("x")}, clock.Now())
	wantCode(t, report.Problems[0], CodeEvidence)
}

func TestNeedsOfRealEvidence(t *testing.T) {
	for name, want := range map[string]string{
		"tdx/quote_v5.dat":                 "intel-tcb-info:90c06f000000",
		"tdx/quote_v4_b0c06f.dat":          "intel-tcb-info:b0c06f000000",
		"tdx/quote_v4_baremetal.dat":       "intel-tcb-info:",
		"snp/genoa_attestation_report.bin": "amd-vcek:Genoa:",
		"snp/milan_vlek_report.bin":        "amd-vlek-chain:Milan",
	} {
		ev := &attest.Evidence{TEE: attest.TEETDX, Report: evidenceFile(t, name)}
		if strings.HasPrefix(name, "snp") {
			ev.TEE = attest.TEESEVSNP
		}
		needs, err := Needs(ev)
		if err != nil || !strings.HasPrefix(needs[0].String(), want) {
			t.Errorf("%s: %v, %v", name, needs, err)
		}
	}
}

func FuzzOpenBundle(f *testing.F) {
	key, trusted := newKey(f)
	text, err := SealBundle(realItems(f), time.Now(), key)
	if err != nil {
		f.Fatal(err)
	}
	e, err := policy.ParseEnvelope(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Payload)
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = OpenBundle(b, trusted)
		bundle, err := parsePayload(b)
		if err != nil {
			return
		}
		again, err := encodePayload(bundle.Items, bundle.Created)
		if err != nil || !bytes.Equal(again, b) {
			t.Error("accepted a payload in another spelling")
		}
	})
}

func FuzzReadFile(f *testing.F) {
	for _, name := range []string{
		"tdx/quote_v4_b0c06f_collateral.json", "tdx/pcs_2026-03_tcb_info_50806f000000.json", "tdx/pcs_2026-03_td_qe_identity.json",
		"tdx/pcs_2026-03_pck_crl_platform.der", "tdx/pcs_2026-03_root_ca_crl.der", "tdx/pcs_2026-03_tcb_signing_chain.pem", "snp/milan_vcek.pem",
	} {
		f.Add(evidenceFile(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reader
		if r.read(b, time.Time{}) != nil {
			return
		}
		for _, i := range r.items {
			if _, err := NewItem(i.Request, i.Body, i.Certs, i.Fetched); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkOpenBundle(b *testing.B) {
	key, trusted := newKey(b)
	text, err := SealBundle(realItems(b), time.Now(), key)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenBundle(text, trusted); err != nil {
			b.Fatal(err)
		}
	}
}
