// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestAProofSaysWhatHolds(t *testing.T) {
	w := newWorld(t)
	w.prove()
	p := w.attestation(proof.PathAttestation, nil)
	s := p.Statement
	if !slices.Equal(s.Hosts, []string{prooftest.Wildcard, prooftest.Host}) || s.Software != "v0-test" || s.TLSKey != digestOf(t, w.TLSKey) ||
		string(s.HPKE.PublicKey) != string(w.Attester.HPKE().PublicKey().Bytes()) || s.DenyList != (proof.Followed{}) {
		t.Errorf("%+v", s)
	}
	if key, err := s.ReceiptPublicKey(); err != nil || !key.Equal(w.ReceiptKey().Public()) {
		t.Errorf("receipt key: %v", err)
	}
	st := w.Status()
	if len(st.Proofs) != 1 || st.Proofs[0].Key != s.TLSKey || !st.Proofs[0].Beacon.Equal(p.Beacon.Time) || !st.Proofs[0].Simulated ||
		st.Rounds != 1 || st.Code != "" || st.Bundle != w.Bundle().Digest() || st.Manifest != s.Manifest {
		t.Errorf("status %+v", st)
	}
	t.Logf("the attestation has %d bytes", st.Proofs[0].Bytes)
}

func TestWhatChangesIsStatedAnew(t *testing.T) {
	w := newWorld(t)
	w.prove()
	first := w.attestation(proof.PathAttestation, nil)

	w.Enrol()
	w.prove()
	renewed := w.attestation(proof.PathAttestation, nil)
	if renewed.Statement.Certificate == first.Statement.Certificate || renewed.Index <= first.Index {
		t.Errorf("the renewed certificate is not stated: %+v", renewed.Statement)
	}

	// Nobody tells the client: the round finds out itself.
	w.Fixture = w.Next(t, nil)
	if err := w.Server.Publish(t.Context(), w.Envelope); err != nil {
		t.Fatal(err)
	}
	if w.Client.Manifest().Manifest.Version != 1 || w.adopted.Load() != 0 {
		t.Fatal("somebody told the client")
	}
	w.prove()
	if got := w.attestation(proof.PathAttestation, nil).Statement.Manifest; got.Version != 2 || got.Digest != w.Signed.Digest {
		t.Errorf("manifest %+v", got)
	}
	if w.adopted.Load() != 1 {
		t.Errorf("told %d times of a manifest", w.adopted.Load())
	}

	w.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	w.prove()
	if got := w.attestation(proof.PathAttestation, nil).Statement.DenyList; got.Version != 1 {
		t.Errorf("deny list %+v", got)
	}

	other := newKey(t)
	w.keys.set(other)
	w.prove()
	p := w.attestation(proof.PathAttestation, func(g *proof.Against) { g.TLSKey = prooftest.SPKI(t, &other.PublicKey) })
	if p.Statement.TLSKey != digestOf(t, other) || len(w.Status().Proofs) != 1 {
		t.Errorf("TLS key %s", p.Statement.TLSKey)
	}
}

// Each of these keeps the last proof, and says why there is no newer one.
func TestProofsThatClientsWouldRefuseAreNotShown(t *testing.T) {
	w := newWorld(t)
	w.prove()
	t.Run("no certificate", func(t *testing.T) {
		w.nobody.Store(true)
		defer w.nobody.Store(false)
		w.fails(CodeNotEnrolled)
	})
	t.Run("evidence of another ingress", func(t *testing.T) {
		w.tee.use(w.CDS.Attester(prooftest.Other), nil)
		defer w.tee.use(w.TEE, nil)
		w.fails(proof.CodeMachine)
	})
	t.Run("a TEE that fails", func(t *testing.T) {
		w.tee.use(nil, errors.New("firmware says no"))
		defer w.tee.use(w.TEE, nil)
		w.fails("internal")
	})
	t.Run("a certificate of another CDS", func(t *testing.T) {
		mine := w.Credential
		defer func() { w.Credential = mine }()
		w.Credential = prooftest.New(t).Credential
		w.fails(CodeForeignRoot)
		if w.suspect.Load() != 1 {
			t.Error("nobody has it replaced")
		}
	})
	t.Run("a clock ahead", func(t *testing.T) {
		defer w.clock.Store(0)
		w.clock.Store(int64(2 * time.Minute))
		w.fails(beacon.CodeStale)
	})
	t.Run("a clock set back", func(t *testing.T) {
		defer w.clock.Store(0)
		w.clock.Store(-int64(2 * time.Minute))
		w.fails(beacon.CodeFuture)
	})
	t.Run("no key", func(t *testing.T) {
		w.keys.set()
		defer w.keys.set(w.TLSKey)
		w.fails(CodeNoKey)
	})
	w.prove() // and then it goes on
	if s := w.Status(); s.Code != "" || !s.Failing.IsZero() || s.Rounds != 2 {
		t.Errorf("status %+v", s)
	}
	t.Run("a machine that the operators deny", func(t *testing.T) {
		w.Deny(policytest.Deny(policy.DenyMachine, w.Credential.Peer.Claims.Machine))
		w.fails(string(policy.CodeDeniedMachine))
	})
	t.Run("a machine that is no ingress any more", func(t *testing.T) {
		w.Publish(func(m *policy.Manifest) { m.Substrates = m.Substrates[:2] })
		w.Deny()
		w.fails(string(policy.CodeRole))
	})
	t.Run("no host any more", func(t *testing.T) {
		w.Publish(func(m *policy.Manifest) { m.Ingress = nil })
		w.fails(CodeNoHost)
	})
}

func TestOnlyHostsOfTheManifestAreClaimed(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Hosts = func() []string {
			return []string{"www.bank.test", "bank.test", "bank.test", "shop.test", "a.b.bank.test", "*.shop.test", "*.bank.test", "nonsense"}
		}
	})
	w.prove()
	got := w.shown.Load().only.proven.Statement.Hosts
	if want := []string{"*.bank.test", "bank.test", "www.bank.test"}; !slices.Equal(got, want) {
		t.Errorf("hosts %v, want %v", got, want)
	}
}

func TestWithoutTheCDSTheLastProofStays(t *testing.T) {
	w := newWorld(t)
	w.prove()
	shown := w.attestation(proof.PathAttestation, nil)
	manifest := body(t, w.get(proof.PathCDS+"/v1/manifest"))
	if resp := w.get(proof.PathCDS + "/v1/denylist"); resp.StatusCode != 404 {
		t.Fatalf("there is a deny list, so this test proves less: %s", resp.Status)
	}
	against := w.Against()
	w.Stop()
	w.fails(CodeUnreachable)
	since := w.Status().Failing
	w.clock.Store(int64(time.Minute))
	w.fails(CodeUnreachable)
	if got := w.Status().Failing; !got.Equal(since) {
		t.Errorf("failing since %s, want %s", got, since)
	}
	a, err := proof.ParseAttestation(body(t, w.get(proof.PathAttestation)))
	if err != nil {
		t.Fatal(err)
	}
	against.Now = time.Now().Add(time.Minute)
	if p, err := a.Verify(against); err != nil || !p.Beacon.Time.Equal(shown.Beacon.Time) {
		t.Errorf("the last proof: %v", err)
	}
	against.Now = shown.Beacon.Time.Add(proof.DefaultMaxAge + time.Second)
	if _, err := a.Verify(against); proof.CodeOf(err) != beacon.CodeStale {
		t.Errorf("it looks younger than it is: %v", err)
	}
	resp := w.get(proof.PathCDS + "/v1/manifest")
	if got := body(t, resp); string(got) != string(manifest) || resp.Header.Get("Cache-Status") == "" {
		t.Errorf("a document that is old: %s, %v", resp.Status, resp.Header)
	}
	if resp := w.get(proof.PathCDS + "/v1/denylist"); resp.StatusCode != 404 {
		t.Errorf("that there is no deny list: %s", resp.Status)
	}
	w.clock.Store(int64(staleLife + time.Minute))
	if resp := w.get(proof.PathCDS + "/v1/manifest"); resp.StatusCode != 502 || string(body(t, resp)) != CodeUnreachable+"\n" {
		t.Errorf("a document that is too old: %s", resp.Status)
	}

	w.clock.Store(0)
	w.Start(w.CDS.Attester("cds"))
	w.clock.Store(int64(reconnectMax)) // nobody waits for the pause
	w.prove()
	if s := w.Status(); s.Code != "" {
		t.Errorf("%+v", s)
	}
}

// Run makes proofs by itself, at once when keys change or somebody wakes it.
func TestRunFollowsChanges(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	w.await(func(s Status) bool { return s.Rounds == 1 })
	other := newKey(t)
	w.keys.set(w.TLSKey, other)
	w.await(func(s Status) bool { return len(s.Proofs) == 2 })
	rounds := w.Status().Rounds
	w.Wake()
	w.await(func(s Status) bool { return s.Rounds > rounds })
}

// await wants the status to become so, long before the next round is due.
func (w *world) await(is func(Status) bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !is(w.Status()); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("status %+v", w.Status())
		}
	}
}

func TestConfigurationsThatLackAPartAreRefused(t *testing.T) {
	w := newWorld(t)
	for name, edit := range map[string]func(*Config){
		"CDS": func(c *Config) { c.CDS = nil }, "identity": func(c *Config) { c.Identity = nil }, "keys": func(c *Config) { c.Keys = nil },
		"TEE": func(c *Config) { c.Attester = nil }, "software": func(c *Config) { c.Software = "" }, "clock": func(c *Config) { c.Now = nil },
		"randomness": func(c *Config) { c.Rand = nil }, "log": func(c *Config) { c.Log = nil },
		"too often": func(c *Config) { c.Refresh = time.Millisecond }, "too seldom": func(c *Config) { c.Refresh = 5 * time.Minute },
	} {
		cfg := w.Attester.cfg
		edit(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkProve(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		w.prove()
	}
}
