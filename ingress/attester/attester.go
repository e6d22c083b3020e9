// SPDX-License-Identifier: Apache-2.0

// Package attester makes the proof that an ingress shows, and serves it beside
// the CDS's public documents. Its invariant: a proof is shown only after it was
// verified here the way a client does, under the manifest and deny list that
// the CDS had in force at that moment; and a proof that cannot be renewed is
// not dressed up: it keeps its old beacon, so that clients see its age.
//
// The TEE is asked on the beacon's rhythm, whatever is requested. Only requests
// with a nonce of their own ask it for more, one at a time and under a limit.
package attester

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// CDS is what an attester asks of the CDS: a *client.Client.
type CDS interface {
	Documents(ctx context.Context) (*client.Documents, error)
	Manifest() *policy.Signed
	DenyList() *policy.SignedDenyList
}

// Identity holds the ingress's mesh certificate: an *identity.Identity.
type Identity interface {
	Enrolled() *client.Credential // nil while there is none that may be used
	Suspect()                     // have it replaced: another CDS issued it; must not block
}

// Keys holds the TLS keys that clients meet: a *certs.Store.
type Keys interface {
	Keys() []*ecdsa.PublicKey
	Changed() <-chan struct{} // closed at the next change; asked for before Keys
}

// Config is what an attester is made of. What is not said to be optional is
// required.
type Config struct {
	CDS      CDS
	Identity Identity
	Keys     Keys
	Attester attest.Attester // of this machine, with collateral stapled where it can be had
	Software string          // version of this program

	// Hosts are those that this ingress serves, as in the manifest. Optional:
	// without it they are all that the manifest names. Those that the manifest
	// does not name are never claimed.
	Hosts func() []string
	// KeyOf is the SHA-256 of the SubjectPublicKeyInfo that the request's
	// connection was answered with. Optional: clients then name the key.
	KeyOf func(*http.Request) ([32]byte, bool)
	// Status answers for the status page. Optional.
	Status http.Handler
	// Adopted is called when a newer manifest or deny list was found in force
	// than the CDS client had been told. Optional; must not block.
	Adopted func()

	Refresh time.Duration // between two proofs; zero is a minute
	Limits  Limits

	Now  func() time.Time
	Rand func(n int64) int64 // uniform in [0, n)
	Log  *slog.Logger
}

const (
	// MinRefresh and MaxRefresh bound the time between two proofs: clients want
	// a beacon of the last five minutes.
	MinRefresh     = time.Second
	MaxRefresh     = 4 * time.Minute
	defaultRefresh = time.Minute
)

// Attester makes and serves proofs. It is safe for concurrent use.
type Attester struct {
	cfg     Config
	hpke    hpke.PrivateKey
	receipt ed25519.PrivateKey
	public  []byte // SubjectPublicKeyInfo of receipt

	source *source
	cache  *cache
	nonces *nonces
	judged *appraise.Cache
	tee    chan struct{} // holds one token: one question at a time
	wake   chan struct{}

	shown atomic.Pointer[shown]
	mu    sync.Mutex
	fate  fate
}

// New makes the keys that live as long as the process. The TEE is not asked
// before Run.
func New(cfg Config) (*Attester, error) {
	if cfg.CDS == nil || cfg.Identity == nil || cfg.Keys == nil || cfg.Attester == nil || cfg.Software == "" || cfg.Now == nil || cfg.Rand == nil || cfg.Log == nil {
		return nil, errors.New("preparing the ingress's proofs: the configuration lacks a part")
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = defaultRefresh
	}
	if cfg.Refresh < MinRefresh || cfg.Refresh > MaxRefresh {
		return nil, fmt.Errorf("preparing the ingress's proofs: one every %s, expected %s to %s", cfg.Refresh, MinRefresh, MaxRefresh)
	}
	cfg.Limits.setDefaults()
	a := &Attester{cfg: cfg, judged: appraise.NewCache(1), tee: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	a.tee <- struct{}{}
	if err := a.makeKeys(); err != nil {
		return nil, fmt.Errorf("preparing the ingress's proofs: %w", err)
	}
	a.source = newSource(cfg.CDS, cfg.Now, cfg.Rand)
	a.cache = newCache(&a.cfg, a.source)
	a.nonces = newNonces(cfg.Limits)
	a.shown.Store(&shown{})
	return a, nil
}

func (a *Attester) makeKeys() error {
	kem := hpke.DHKEM(ecdh.X25519())
	var err error
	if a.hpke, err = kem.GenerateKey(); err != nil {
		return err
	}
	if _, a.receipt, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return err
	}
	a.public, err = x509.MarshalPKIXPublicKey(a.receipt.Public())
	return err
}

// HPKE is the key that requests may be encrypted to.
func (a *Attester) HPKE() hpke.PrivateKey { return a.hpke }

// ReceiptKey signs answers.
func (a *Attester) ReceiptKey() ed25519.PrivateKey { return a.receipt }

// Wake has the proof made anew, because something that it says has changed: the
// mesh certificate, the manifest, the deny list or the hosts. It does not block.
func (a *Attester) Wake() {
	select {
	case a.wake <- struct{}{}:
	default: // somebody did already
	}
}

// ask asks the TEE one question at a time.
func (a *Attester) ask(ctx context.Context, t attest.Transcript) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the TEE: %w", ctx.Err())
	case <-a.tee:
		defer func() { a.tee <- struct{}{} }()
	}
	evidence, err := a.cfg.Attester.Attest(ctx, t.ReportData())
	if err != nil {
		return nil, err
	}
	return attest.MarshalCMW(evidence)
}

// askTimeout bounds one question. Hardware takes up to some seconds, and
// throttles whoever asks too often.
const askTimeout = 30 * time.Second
