// SPDX-License-Identifier: Apache-2.0

package client

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestReplicasWithOwnKeysAreProvenEach(t *testing.T) {
	w := clienttest.New(t)
	a, b := w.Ingress(), w.Ingress()
	cfg := config(w, a, b) // connections go to one and the other in turn
	cfg.OnlyHTTP1 = true
	c := newClient(t, cfg)
	var all sync.WaitGroup
	gate, arrived := make(chan struct{}), make(chan struct{}, 8)
	for _, in := range []*clienttest.Ingress{a, b} {
		in.Use(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-gate })
	}
	for range 8 {
		all.Go(func() {
			if _, err := get(t, c, "/"); err != nil {
				t.Error(err)
				arrived <- struct{}{}
			}
		})
	}
	for range 8 { // all have connections of their own by then
		<-arrived
	}
	close(gate)
	all.Wait()
	if a.Requests.Load() == 0 || b.Requests.Load() == 0 {
		t.Errorf("%d and %d requests, want some at both", a.Requests.Load(), b.Requests.Load())
	}
	if a.Proofs.Load() != 1 || b.Proofs.Load() != 1 {
		t.Errorf("%d and %d proofs, want one for each key", a.Proofs.Load(), b.Proofs.Load())
	}
}

func TestOneLyingReplicaSpoilsOnlyItsConnections(t *testing.T) {
	w := clienttest.New(t)
	good := w.Ingress()
	bad := w.Ingress(func(in *clienttest.Ingress) {
		in.Answer(proof.PathAttestation, func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write(good.Attestation(r.Context(), nil)) })
	})
	c := newClient(t, config(w, good, bad))
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	c.CloseIdleConnections()
	if code, _ := send(t, c); code != proof.CodeKey {
		t.Errorf("code %q, want %s", code, proof.CodeKey)
	}
	if code, err := send(t, c); err != nil {
		t.Error(code, err)
	}
	bad.NothingArrived(t)
}

func TestRotatedKeyIsProvenAnew(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	cfg := config(w, in)
	cfg.InsecureSkipWebPKI, cfg.Roots = true, nil
	c := newClient(t, cfg)
	for range 2 {
		if code, err := send(t, c); err != nil {
			t.Fatal(code, err)
		}
		in.Rotate()
		c.CloseIdleConnections()
	}
	if n := in.Proofs.Load(); n != 2 {
		t.Errorf("%d proofs, want one for each key", n)
	}
}

func TestProofsAreRenewedWhileConnectionsLive(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	c := newClient(t, config(w, in))
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	o, err := c.originOf(host, "443")
	if err != nil {
		t.Fatal(err)
	}
	if o.tendOnce(t.Context()); in.Proofs.Load() != 1 {
		t.Fatalf("%d proofs before one was due", in.Proofs.Load())
	}
	w.Pass(2 * time.Minute)
	if live := o.tendOnce(t.Context()); !live || in.Proofs.Load() != 2 {
		t.Errorf("connections live: %t; %d proofs, want a second one", live, in.Proofs.Load())
	}
	in.Answer(proof.PathAttestation, http.NotFound)
	w.Pass(2 * time.Minute)
	o.tendOnce(t.Context())
	if code, err := send(t, c); err != nil { // the last proof is still young enough
		t.Error(code, err)
	}
	w.Pass(4 * time.Minute)
	before := in.Requests.Load()
	if code, _ := send(t, c); code != CodeUnavailable || in.Requests.Load() != before {
		t.Errorf("code %q, %d requests more, want none after the proof is too old", code, in.Requests.Load()-before)
	}
}

func TestConnectionsOfOthersAreNotUsedWithoutANewProof(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	c := newClient(t, config(w, in))
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	o, err := c.originOf(host, "443")
	if err != nil {
		t.Fatal(err)
	}
	w.Pass(6 * time.Minute)
	in.Answer(proof.PathAttestation, http.NotFound)
	// As after a wait for whoever dials: there is a connection by then.
	if cn, err := o.open(t.Context(), false); codeOf(err) != CodeUnavailable {
		t.Errorf("%+v, %v: a connection without a proof that is young enough", cn, err)
	}
}

func TestClockThatWasSetBackNeedsANewProof(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	w.Pass(30 * time.Second)
	c := newClient(t, config(w, in))
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	w.Pass(-4 * time.Minute)
	if code, _ := send(t, c); code != "beacon-future" {
		t.Errorf("code %q, want beacon-future", code)
	}
}

func TestManifestThatChangesIsFollowed(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	cfg := config(w, in)
	cfg.StateDir = t.TempDir()
	c := newClient(t, cfg)
	if code, err := send(t, c); err != nil {
		t.Fatal(code, err)
	}
	at := w.Fixture
	for range 3 {
		at = at.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = !m.Workloads[1].HostAccess })
		if _, err := w.CDS.Client().PublishManifest(t.Context(), at.Envelope); err != nil {
			t.Fatal(err)
		}
	}
	w.Pass(2 * time.Minute)
	o, _ := c.originOf(host, "443")
	o.tendOnce(t.Context())
	for _, c := range []*Client{c, newClient(t, cfg)} {
		r, err := c.Prove(t.Context(), host)
		if err != nil || r.Manifest.Version != at.Manifest.Version {
			t.Errorf("%+v, %v, want version %d", r, err, at.Manifest.Version)
		}
	}
}

func TestOperatorsThatChangeAreFollowed(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	others, keys := policytest.Operators(t, 2, 2)
	second := w.Fixture.Next(t, func(m *policy.Manifest) { m.Operators = others })
	m, err := policy.Parse(second.Payload)
	if err != nil {
		t.Fatal(err)
	}
	m.Version, m.Previous = 3, second.Digest
	third := policytest.Sign(t, m, others, keys...)
	for _, envelope := range [][]byte{second.Envelope, third.Envelope} {
		if _, err := w.CDS.Client().PublishManifest(t.Context(), envelope); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(w, in)
	cfg.StateDir = t.TempDir()
	for range 2 { // without and with a memory
		r, err := newClient(t, cfg).Prove(t.Context(), host)
		if err != nil || r.Manifest.Version != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	cfg.Anchor = FromOperators(others) // who comes later
	if _, err := newClient(t, cfg).Prove(t.Context(), host); codeOf(err) != "operators-not-bound" {
		t.Errorf("the CDS was launched for others: %v", err)
	}
}

func TestCDSIsAnAnchorToo(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	raw, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: w.Manifest.Substrates})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.ParseAppraisalPolicy(raw)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(w, in)
	cfg.Anchor = FromCDS(p)
	if code, err := send(t, newClient(t, cfg)); err != nil {
		t.Error(code, err)
	}
	for i := range p.Substrates {
		p.Substrates[i].Measurements = []string{policytest.Hex(0xcd, 48)}
	}
	if raw, err = policy.EncodeAppraisalPolicy(p); err != nil {
		t.Fatal(err)
	}
	if p, err = policy.ParseAppraisalPolicy(raw); err != nil {
		t.Fatal(err)
	}
	cfg.Anchor = FromCDS(p)
	before := in.Requests.Load()
	if code, _ := send(t, newClient(t, cfg)); code != "measurement-not-listed" && code != string(policy.CodeMeasurement) || in.Requests.Load() != before {
		t.Errorf("another measurement: code %q", code)
	}
}
