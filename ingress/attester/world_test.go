// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
)

// world is an attester of a real CDS, on a simulated machine.
type world struct {
	*prooftest.World
	*Attester
	keys    *keyring
	tee     *tee
	clock   atomic.Int64 // ahead of the real one, nanoseconds
	nobody  atomic.Bool  // has no certificate
	adopted atomic.Int32
	suspect atomic.Int32
	t       testing.TB
}

func newWorld(t testing.TB, edits ...func(*Config)) *world {
	t.Helper()
	w := &world{World: prooftest.New(t), keys: &keyring{changed: make(chan struct{})}, t: t}
	w.keys.set(w.TLSKey)
	w.tee = &tee{of: w.TEE}
	cfg := Config{
		CDS: w.Client, Identity: w, Keys: w.keys, Attester: w.tee, Software: "v0-test", Adopted: func() { w.adopted.Add(1) },
		Now:  func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) },
		Rand: mathrand.Int64N, Log: slog.New(slog.DiscardHandler),
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	var err error
	if w.Attester, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.source.close)
	return w
}

// Enrolled implements Identity.
func (w *world) Enrolled() *client.Credential {
	if w.nobody.Load() {
		return nil
	}
	return w.Credential
}

// Suspect implements Identity.
func (w *world) Suspect() { w.suspect.Add(1) }

// prove makes a round that must succeed.
func (w *world) prove() {
	w.t.Helper()
	if err := w.Prove(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// fails makes a round that must fail with the code, and keep what is shown.
func (w *world) fails(code string) {
	w.t.Helper()
	before := w.shown.Load()
	err := w.Prove(w.t.Context())
	if err == nil || codeOf(err) != code {
		w.t.Errorf("code %q, want %q: %v", codeOf(err), code, err)
	}
	if w.shown.Load() != before {
		w.t.Error("another proof is shown")
	}
	if s := w.Status(); s.Code != code || s.Error == "" || s.Failing.IsZero() {
		w.t.Errorf("status %+v", s)
	}
}

// get asks the handler.
func (w *world) get(target string, edits ...func(*http.Request)) *http.Response {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, target, nil)
	for _, edit := range edits {
		edit(r)
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec.Result()
}

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }

func method(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }

func body(t testing.TB, resp *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// attestation reads and verifies what is served.
func (w *world) attestation(target string, edit func(*proof.Against)) *proof.Proof {
	w.t.Helper()
	resp := w.get(target)
	text := body(w.t, resp)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s %s", target, resp.Status, text)
	}
	a, err := proof.ParseAttestation(text)
	if err != nil {
		w.t.Fatal(err)
	}
	against := w.Against()
	against.Now = w.Attester.cfg.Now()
	if edit != nil {
		edit(&against)
	}
	p, err := a.Verify(against)
	if err != nil {
		w.t.Fatalf("%s: %v", target, err)
	}
	return p
}

// tee counts how often it is asked, and by how many at once.
type tee struct {
	of          attest.Attester
	asked       atomic.Int64
	now, most   atomic.Int64
	block       chan struct{} // nil: nothing waits
	mu          sync.Mutex
	interrupted error
}

func (t *tee) Attest(ctx context.Context, data [64]byte) (*attest.Evidence, error) {
	t.asked.Add(1)
	n := t.now.Add(1)
	defer t.now.Add(-1)
	for most := t.most.Load(); n > most && !t.most.CompareAndSwap(most, n); most = t.most.Load() {
	}
	if t.block != nil {
		select {
		case <-t.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interrupted != nil {
		return nil, t.interrupted
	}
	return t.of.Attest(ctx, data)
}

func (t *tee) use(of attest.Attester, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of != nil {
		t.of = of
	}
	t.interrupted = err
}

// keyring is a store of TLS keys.
type keyring struct {
	mu      sync.Mutex
	keys    []*ecdsa.PublicKey
	changed chan struct{}
}

func (k *keyring) Keys() []*ecdsa.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys
}

func (k *keyring) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

func (k *keyring) set(keys ...*ecdsa.PrivateKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = nil
	for _, key := range keys {
		k.keys = append(k.keys, &key.PublicKey)
	}
	close(k.changed)
	k.changed = make(chan struct{})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func digestOf(t testing.TB, key *ecdsa.PrivateKey) policy.Digest {
	t.Helper()
	return policy.DigestFrom(prooftest.SPKI(t, &key.PublicKey))
}
