// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// copyOf is a mirror that may be spoiled.
func copyOf(t *testing.T, mirror string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(mirror)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantFail requires that the certificate is refused at one of these steps.
func wantFail(t *testing.T, dir string, steps ...string) {
	t.Helper()
	out, code := judge(t, dir, "-beacon", "1h")
	failed := regexp.MustCompile(`(?m)^FAIL (\S+)`).FindStringSubmatch(out)
	if code != exitBad || failed == nil || !slices.Contains(steps, failed[1]) {
		t.Errorf("exit code %d, want %d and that one of %q fails\n%s", code, exitBad, steps, out)
	}
}

// stepsOf says which steps read a document first, and so notice if it is not
// what it was.
func stepsOf(path string) []string {
	for prefix, steps := range map[string][]string{
		"operators.json": {"operators", "manifests"}, "v1/manifest": {"manifests"}, "v1/document": {"manifests"}, "v1/denylist": {"denylist"},
		"v1/endorsement": {"bundle", "bundle-evidence"}, "log/": {"log"}, "v1/certificate/": {"log-issuer"},
		"v1/evidence/": {"log-issuer", "evidence", "claims"}, "v1/countersignature/": {"countersigned"}, "v1/beacon": {"beacon"},
	} {
		if strings.HasPrefix(path, prefix) {
			return steps
		}
	}
	return nil
}

// A document that is lost or cut short is found where it is first needed.
func TestEveryDocumentIsNeeded(t *testing.T) {
	w := newWorld(t)
	cred := w.pod(w.Enrol(), nil)
	w.publish(nil)
	w.deny(policytest.Deny(policy.DenyWorkload, "db"))
	good := t.TempDir()
	w.mirror(good, cred)
	seen := map[string]bool{}
	err := fs.WalkDir(os.DirFS(good), ".", func(path string, d fs.DirEntry, err error) error {
		steps := stepsOf(path)
		if err != nil || d.IsDir() || steps == nil {
			return err
		}
		seen[steps[0]] = true
		t.Run(path, func(t *testing.T) {
			dir := copyOf(t, good)
			file := filepath.Join(dir, path)
			whole := read(t, file)
			write(t, file, whole[:len(whole)/2])
			wantFail(t, dir, steps...)
			if path == "operators.json" {
				return // without it the program does not begin
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.HasPrefix(path, "v1/document/"):
				steps = []string{"leaf-manifest"} // history may be incomplete, but not for this certificate
			case path == "v1/denylist":
				steps = []string{"log-policy"} // may be missing; the log knows better
			}
			wantFail(t, dir, steps...)
		})
		return nil
	})
	if err != nil || len(seen) != 8 {
		t.Errorf("%v; documents of %d kinds, want 8: %v", err, len(seen), seen)
	}
}

// Every bit of what is signed or hashed counts.
func TestEveryByteOfTheLogCounts(t *testing.T) {
	w := newWorld(t)
	good := t.TempDir()
	w.mirror(good, w.Enrol())
	for _, path := range []string{"log/checkpoint", "log/tile/entries/000.p/4", "log/tile/0/000.p/4"} {
		whole := read(t, filepath.Join(good, path))
		for _, at := range []int{0, len(whole) / 3, len(whole) / 2, len(whole) - 1} {
			dir := copyOf(t, good)
			spoiled := bytes.Clone(whole)
			spoiled[at] ^= 0x10
			write(t, filepath.Join(dir, path), spoiled)
			wantFail(t, dir, "log")
		}
	}
}

// Whoever is between the auditor and the CDS may mix documents of several.
func TestDocumentsOfOthersAreRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	node := w.Enrol()
	good, foreign := t.TempDir(), t.TempDir()
	w.mirror(good, w.pod(node, nil))
	other.mirror(foreign, other.pod(other.Enrol(), nil))
	from := func(path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(foreign, path)); err == nil {
				write(t, filepath.Join(dir, path), b)
			} else if err := os.CopyFS(filepath.Join(dir, path), os.DirFS(filepath.Join(foreign, path))); err != nil {
				t.Fatal(err)
			}
		}
	}
	evidence := func(cred *client.Credential) string {
		return "v1/evidence/" + hex.EncodeToString(cred.Peer.Claims.EvidenceHash[:])
	}
	for name, tt := range map[string]struct {
		spoil func(*testing.T, string)
		step  string
	}{
		"other operators":         {from("operators.json"), "manifests"},
		"a manifest of others":    {from("v1/manifest"), "manifests"},
		"a CDS of others":         {from("v1/endorsement"), "bundle"},
		"another log":             {from("log"), "log"},
		"a certificate of others": {from("certificate.pem"), "leaf-manifest"},
		"a beacon of others":      {from("v1/beacon"), "beacon"},
		"evidence of others": {func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(foreign, "v1/evidence/*"))
			if err != nil || len(files) == 0 {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, evidence(node)), read(t, files[0]))
		}, "evidence"},
		"another transcript": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, evidence(node)), func(d *api.EvidenceDocument) { d.Transcript.Nonce[0] ^= 1 })
		}, "evidence"},
		"too few operators": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "v1/manifest"), func(e *map[string]any) { (*e)["signatures"] = (*e)["signatures"].([]any)[:1] })
		}, "manifests"},
		"one operator twice": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "v1/manifest"), func(e *map[string]any) {
				one := (*e)["signatures"].([]any)[0]
				(*e)["signatures"] = []any{one, one, one}
			})
		}, "manifests"},
		"a changed manifest": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "v1/manifest"), func(e *struct {
				PayloadType, Payload string
				Signatures           any
			},
			) {
				payload, err := base64.StdEncoding.DecodeString(e.Payload)
				if err != nil {
					t.Fatal(err)
				}
				e.Payload = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(`"threshold": 2`), []byte(`"threshold": 1`), 1))
			})
		}, "manifests"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyOf(t, good)
			tt.spoil(t, dir)
			wantFail(t, dir, tt.step)
		})
	}
}

// edit changes a JSON file.
func edit[T any](t *testing.T, path string, change func(*T)) {
	t.Helper()
	var v T
	if err := json.Unmarshal(read(t, path), &v); err != nil {
		t.Fatal(err)
	}
	change(&v)
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, b)
}

// wantFailNow asks the CDS itself.
func (w *world) wantFailNow(t *testing.T, cred *client.Credential, step string) {
	t.Helper()
	operators, certificate := w.files(t.TempDir(), cred)
	out, code := verifier(t, "-operators", operators, "-documents", w.url(), certificate)
	if code != exitBad || !strings.Contains(out, "FAIL "+step+" ") {
		t.Errorf("exit code %d, want %d and that %s fails\n%s", code, exitBad, step, out)
	}
}

func TestWhatTheOperatorsTookBackWithAManifest(t *testing.T) {
	for name, tt := range map[string]struct {
		step string
		edit func(*policy.Manifest)
	}{
		"the workload's entry changed": {"leaf-manifest", func(m *policy.Manifest) {
			m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "x", Digest: policytest.Digest("x")})
		}},
		"the workload's entry is gone": {"leaf-manifest", func(m *policy.Manifest) { m.Workloads = m.Workloads[1:]; m.Workloads[0].Peers = policy.Peers{} }},
		"the machine is not listed":    {"accepted-now", func(m *policy.Manifest) { m.Substrates = slices.Delete(m.Substrates, 1, 2) }},
		"the CDS is not listed":        {"bundle-evidence", func(m *policy.Manifest) { m.Substrates = m.Substrates[1:] }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cred := w.pod(w.Enrol(), nil)
			w.publish(tt.edit)
			w.wantFailNow(t, cred, tt.step)
		})
	}
}

func TestWhatTheOperatorsDenied(t *testing.T) {
	w := newWorld(t)
	cred := w.pod(w.Enrol(), nil)
	h := cred.Peer.Holder()
	for kind, value := range map[policy.DenyKind]string{
		policy.DenySerial: h.Serial, policy.DenyKey: string(h.Key), policy.DenyMachine: h.Machine,
		policy.DenyMeasurement: h.Measurement, policy.DenyWorkload: h.Workload,
	} {
		w.deny(policytest.Deny(policy.DenyWorkload, "db"), policytest.Deny(kind, value))
		w.wantFailNow(t, cred, "denied")
	}
}

func TestCertificatesEnd(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.mirror(dir, w.Enrol())
	for _, offset := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		out, code := judge(t, dir, "-at", time.Now().Add(offset).Format(time.RFC3339))
		if code != exitBad || !strings.Contains(out, "FAIL leaf ") {
			t.Errorf("%s later: exit code %d\n%s", offset, code, out)
		}
	}
	if out, code := judge(t, dir, "-beacon", "1m", "-at", time.Now().Add(10*time.Minute).Format(time.RFC3339)); code != exitBad || !strings.Contains(out, "FAIL beacon ") {
		t.Errorf("an old beacon: exit code %d\n%s", code, out)
	}
}
