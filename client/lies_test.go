// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// send posts something secret and returns the code of the step that refused it.
func send(t *testing.T, c *Client) (code string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/pay", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Transport().RoundTrip(req)
	if err != nil {
		return codeOf(err), err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return "", resp.Body.Close()
}

func TestLiesGetNoByteOfARequest(t *testing.T) {
	w := clienttest.New(t)
	honest := w.Ingress()
	for name, tt := range map[string]struct {
		lie  func(t *testing.T, in *clienttest.Ingress)
		edit func(*Config)
		code string
	}{
		"proof for another key": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) {
				_, _ = rw.Write(in.AttestationFor(r.Context(), sha256.Sum256([]byte("another")), nil))
			})
		}, code: proof.CodeKey},
		"proof of another ingress, from in between": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write(honest.Attestation(r.Context(), nil)) })
		}, code: proof.CodeKey},
		"statement changed after the evidence": {lie: func(t *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) {
				a, err := proof.ParseAttestation(honest.Attestation(r.Context(), nil))
				must(t, err)
				a.Statement.TLSKey = policy.DigestFrom(in.SPKI())
				text, err := a.Encode()
				must(t, err)
				_, _ = rw.Write(text)
			})
		}, code: "report-data"},
		"no nonce where one was asked": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write(in.Attestation(r.Context(), nil)) })
		}, edit: func(c *Config) { c.FreshEvidence = true }, code: proof.CodeNonce},
		"another host": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Say(func(s *proof.Statement) { s.Hosts = []string{"other.example"} })
		}, code: proof.CodeHost},
		"another manifest": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Say(func(s *proof.Statement) { s.Manifest.Digest = policytest.Digest("x") })
		}, code: proof.CodeManifest},
		"garbage": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>")) })
		}, code: proof.CodeMalformed},
		"garbage manifest": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathCDS+"/v1/manifest", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("{}")) })
		}, code: "json-missing-field"},
		"no proof at all": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, http.NotFound)
		}, code: CodeUnavailable},
		"endless": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, _ *http.Request) {
				block := bytes.Repeat([]byte{'x'}, 1<<20)
				for range 1 << 10 {
					if _, err := rw.Write(block); err != nil {
						return
					}
				}
			})
		}, code: CodeDocument},
		"redirection to another host": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://"+honest.Addr()+r.URL.Path, http.StatusFound)
			})
		}, code: CodeUnavailable},
		"older TLS": {lie: func(_ *testing.T, in *clienttest.Ingress) {
			in.MaxTLS = tls.VersionTLS12
		}, code: CodeTLS},
		"certificate for another name": {lie: func(*testing.T, *clienttest.Ingress) {}, edit: func(c *Config) { c.Roots = nil }, code: CodeTLS},
		"other operators": {lie: func(*testing.T, *clienttest.Ingress) {}, edit: func(c *Config) {
			others, _ := policytest.Operators(t, 1, 1)
			c.Anchor = FromOperators(others)
		}, code: string(policy.CodeThresholdUnmet)},
	} {
		t.Run(name, func(t *testing.T) {
			in := w.Ingress(func(in *clienttest.Ingress) { tt.lie(t, in) })
			cfg := config(w, in)
			if tt.edit != nil {
				tt.edit(&cfg)
			}
			code, err := send(t, newClient(t, cfg))
			if code != tt.code {
				t.Errorf("code %q, want %q: %v", code, tt.code, err)
			}
			in.NothingArrived(t)
		})
	}
}

// Who answers byte by byte, or not at all, holds a client up no longer than it
// allows.
func TestSlowProofIsGivenUp(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress(func(in *clienttest.Ingress) {
		in.Answer(proof.PathAttestation, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
	cfg := config(w, in)
	cfg.Within = 200 * time.Millisecond
	if _, err := send(t, newClient(t, cfg)); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("got %v", err)
	}
	in.NothingArrived(t)
}

func TestStaleProofIsRefused(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	in.Keep(t.Context())
	c := newClient(t, config(w, in))
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	before := in.Requests.Load()
	w.Pass(6 * time.Minute)
	for range 2 { // on the connection that was proven, and on a new one
		if code, err := send(t, c); code != "beacon-stale" {
			t.Errorf("code %q: %v", code, err)
		}
	}
	if n := in.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

type answering func(*http.Request) (*http.Response, error)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

func TestDocumentsOfOneJudgementAreBounded(t *testing.T) {
	p := &peer{base: "https://" + host, rt: answering(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("manifest"))}, nil
	})}
	get := p.getter()
	p.size = maxDocuments - 12
	if _, err := get(t.Context(), "/v1/document/a"); err != nil {
		t.Error(err)
	}
	if _, err := get(t.Context(), "/v1/document/b"); attest.FailureCode(err) != CodeDocument {
		t.Errorf("want %s: %v", CodeDocument, err)
	}
	p.taken()
	if _, err := get(t.Context(), "/v1/document/c"); err != nil {
		t.Errorf("the next judgement: %v", err)
	}
}

func TestOlderManifestIsRefused(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	old, err := w.Docs.Get(t.Context(), "/v1/manifest")
	if err != nil {
		t.Fatal(err)
	}
	next := w.Fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	if _, err := w.CDS.Client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	cfg := config(w, in)
	cfg.StateDir = t.TempDir()
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Fatal(code, err)
	}
	in.Answer(proof.PathCDS+"/v1/manifest", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(old) })
	before := in.Requests.Load()
	if code, err := send(t, newClient(t, cfg)); code != CodeOlder {
		t.Errorf("with a memory: code %q: %v", code, err)
	}
	cfg.StateDir = ""
	if code, err := send(t, newClient(t, cfg)); code != proof.CodeManifestAhead {
		t.Errorf("without one: code %q: %v", code, err)
	}
	if n := in.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestDenyListCannotBeHidden(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	list := w.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, policytest.DB))
	if _, err := w.CDS.Client().PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	cfg := config(w, in)
	cfg.StateDir = t.TempDir()
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Fatal(code, err)
	}
	in.Answer(proof.PathCDS+"/v1/denylist", http.NotFound)
	if code, err := send(t, newClient(t, cfg)); code != CodeOlder {
		t.Errorf("with a memory: code %q: %v", code, err)
	}
	cfg.StateDir = ""
	if code, err := send(t, newClient(t, cfg)); code != proof.CodeDenyListAhead {
		t.Errorf("without one: code %q: %v", code, err)
	}
}

func TestDeniedMachinesAreRefused(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	list := w.DenyList(t, nil, policytest.Deny(policy.DenyMachine, in.Cred.Peer.Claims.Machine))
	if _, err := w.CDS.Client().PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	code, err := send(t, newClient(t, config(w, in)))
	if err == nil || code == "" {
		t.Errorf("code %q: %v", code, err)
	}
	in.NothingArrived(t)
}

func TestForkedLogIsRefused(t *testing.T) {
	w := clienttest.New(t)
	snapshot := w.Store.Snapshot()
	first := w.Ingress()
	cfg := config(w, first)
	cfg.StateDir = t.TempDir()
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Fatal(code, err)
	}
	w.Stop()
	w.Store.Restore(snapshot)
	w.Start(w.Attester("cds")) // nothing in it knows better
	w.Read()
	second := w.Ingress()
	w.Enrol() // now the log is longer than what was seen, and another
	cfg.Dial, cfg.Roots = config(w, second).Dial, config(w, second).Roots
	if code, err := send(t, newClient(t, cfg)); code != CodeForked {
		t.Errorf("code %q: %v", code, err)
	}
	second.NothingArrived(t)
}

func TestCDSThatWasMadeAnewIsRefusedUntilTheOperatorsSpeak(t *testing.T) {
	w := clienttest.New(t)
	first := w.Ingress()
	cfg := config(w, first)
	cfg.StateDir = t.TempDir()
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Fatal(code, err)
	}
	w.Stop()
	w.Store = storetest.NewMemory()
	w.Start(w.Attester("cds"))
	w.Read()
	second := w.Ingress()
	cfg.Dial, cfg.Roots = config(w, second).Dial, config(w, second).Roots
	if code, err := send(t, newClient(t, cfg)); code != CodeReplaced {
		t.Errorf("code %q: %v", code, err)
	}
	second.NothingArrived(t)
	next := w.Fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	if _, err := w.CDS.Client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Error(code, err)
	}
}

func TestAnIngressMayAskForPatience(t *testing.T) {
	w := clienttest.New(t)
	busy := true
	in := w.Ingress(func(in *clienttest.Ingress) {
		in.Lie(func(path string, rw http.ResponseWriter, _ *http.Request) bool {
			if path != proof.PathCDS+"/v1/manifest" || !busy {
				return false
			}
			busy = false
			rw.Header().Set("Retry-After", "1")
			http.Error(rw, "too-many", http.StatusTooManyRequests)
			return true
		})
	})
	if code, err := send(t, newClient(t, config(w, in))); err != nil {
		t.Error(code, err)
	}
	in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Retry-After", "3600")
		http.Error(rw, "too-many", http.StatusTooManyRequests)
	})
	if code, err := send(t, newClient(t, config(w, in))); code != CodeUnavailable || !strings.Contains(err.Error(), "in 3600 seconds") {
		t.Errorf("code %q: %v", code, err)
	}
}

func TestWitnessesAreCounted(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := translog.NewCosigner("w.example", key)
	if err != nil {
		t.Fatal(err)
	}
	w := clienttest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Witnesses, m.WitnessQuorum = []policy.Witness{{Name: "w.example", Key: cosigner.VerifierKey()}}, 1
	}))
	in := w.Ingress()
	if code, err := send(t, newClient(t, config(w, in))); code != CodeUnwitnessed {
		t.Errorf("without cosignatures: code %q: %v", code, err)
	}
	in.NothingArrived(t)
	cfg := config(w, in)
	cfg.AllowUnwitnessed = true
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Error(code, err)
	}
	signed, err := w.Docs.Get(t.Context(), "/log/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := w.Docs.Bundle().LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := translog.AddCosignature(signed, verifier.Name(), verifier, cosigner, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.CDS.Client().Cosign(t.Context(), cosigned); err != nil {
		t.Fatal(err)
	}
	if code, err := send(t, newClient(t, config(w, in))); err != nil {
		t.Error(code, err)
	}
}
