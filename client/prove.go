// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

const nonceSize = 32

// peer is the other end of one connection. rt is that connection and nothing
// else.
type peer struct {
	rt    http.RoundTripper
	base  string // https://host:port
	host  string
	addr  string // of the network
	state tls.ConnectionState
	key   [32]byte // SHA-256 of its SubjectPublicKeyInfo

	mu        sync.Mutex
	documents []Document
	size      int64 // of them all
}

// standing is what is known of one TLS key of an origin.
type standing struct {
	gate gate // one proof at a time

	mu      sync.Mutex
	report  *Report // nil: never proven
	at      time.Time
	until   time.Time
	receipt ed25519.PublicKey
}

// fresh reports whether the key may be used now. A clock that was set back
// proves nothing about age.
func (s *standing) fresh(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report != nil && now.Before(s.until) && !now.Before(s.at.Add(-time.Minute))
}

// due reports whether the ingress has made a newer proof by now.
func (s *standing) due(now time.Time, every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report == nil || now.Sub(s.at) >= every
}

func (s *standing) get() (*Report, ed25519.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report, s.receipt
}

// gate lets one goroutine in at a time, and others give up waiting.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g gate) leave() { <-g }

// prove makes sure that the peer's key is proven, by asking on its connection
// where it is not yet, or where anew is set.
func (o *origin) prove(ctx context.Context, p *peer, anew bool) error {
	s := o.standing(p.key)
	began := o.c.cfg.Now()
	if err := s.gate.enter(ctx); err != nil {
		return fmt.Errorf("waiting for the proof of %s: %w", o.addr, err)
	}
	defer s.gate.leave()
	s.mu.Lock()
	meanwhile := s.report != nil && !s.at.Before(began)
	s.mu.Unlock()
	if s.fresh(o.c.cfg.Now()) && (!anew || meanwhile) {
		return nil
	}
	r, err := o.judge(ctx, p)
	if hook := o.c.cfg.OnReport; hook != nil && r != nil {
		hook(ctx, r)
	}
	if err == nil {
		err = o.c.accept(r)
	}
	if err != nil {
		return err
	}
	public, err := r.Proof.Statement.ReceiptPublicKey()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report, s.at, s.until, s.receipt = r, r.At, r.Until, public
	return nil
}

// judgeOnce judges what the peer shows now.
func (o *origin) judgeOnce(ctx context.Context, p *peer) *judgement {
	nonce, err := o.c.nonce()
	if err != nil {
		return &judgement{err: err}
	}
	j := &judgement{r: o.report(p)}
	if j.a, err = o.attestation(ctx, p, nonce); err != nil {
		j.r, j.err = o.unproven(ctx, p, j.r, err)
		return j
	}
	shown := p.taken()
	for old := o.lately(); ; old = nil {
		r := o.report(p)
		j.r, j.w = r, old
		if old == nil {
			j.w, err = o.c.readWord(ctx, p.getter(), r)
			r.Documents = append(shown, p.taken()...)
			if err != nil {
				r.conclude()
				j.err = err
				return j
			}
			j.w.steps, j.w.documents = r.Steps[1:], r.Documents[len(shown):]
			o.take(j.w)
		} else {
			r.Steps, r.Documents = append(r.Steps, old.steps...), append(shown, old.documents...)
		}
		if j.err = o.weigh(j.a, p, j.w, r, nonce); j.err == nil || old == nil {
			return j
		}
	}
}

// unproven reports on a host that shows no proof: what can be said without one
// is still said.
func (o *origin) unproven(ctx context.Context, p *peer, r *Report, cause error) (*Report, error) {
	if ctx.Err() == nil && !isNetwork(cause) {
		_, _ = o.c.readWord(ctx, p.getter(), r) // its steps are in the report
	}
	if errors.Is(cause, fs.ErrNotExist) {
		cause = refusal(CodeUnavailable, "the attestation of an ingress", cause.Error(), "is this host served by an attested ingress of c8s?")
	}
	err := r.refute("statement", "the attestation of an ingress, for the key of this connection", cause)
	r.Documents = p.taken()
	r.conclude()
	return r, err
}

// weigh judges the attestation under the word.
func (o *origin) weigh(a *proof.Attestation, p *peer, w *word, r *Report, nonce []byte) error {
	found, err := a.Verify(proof.Against{
		Manifest: w.manifest, DenyList: w.denyList, Bundle: w.bundle, ManifestSince: w.manifestSince, DenyListSince: w.denyListSince,
		Now: o.c.cfg.Now(), MaxAge: o.c.cfg.MaxAge, TLSKey: p.key, Host: o.host, Nonce: nonce, Cache: o.c.cache,
	})
	r.TrustDomain = w.manifest.Manifest.TrustDomain
	r.Manifest = &proof.Followed{Version: w.manifest.Manifest.Version, Digest: w.manifest.Digest}
	if l := w.denyList; l != nil {
		r.DenyList = &proof.Followed{Version: l.List.Version, Digest: l.Digest}
	}
	r.Proof, r.Until = found, found.Until
	r.Steps = append(r.Steps, found.Steps...)
	r.conclude()
	if err == nil && r.Overall == Refuted {
		err = errors.New("verifying an attestation: a step is refuted")
	}
	if err == nil {
		return nil
	}
	failed := proof.Step{Name: "statement", State: proof.Refuted, Code: CodeDocument, Expected: "a proof", Actual: err.Error()}
	if steps := r.Refuted(); len(steps) > 0 {
		failed = steps[0]
	}
	return &Refusal{Step: failed, Report: r, cause: err}
}

// report begins with what the handshake showed.
func (o *origin) report(p *peer) *Report {
	r := &Report{URL: o.base, Address: p.addr, At: o.c.cfg.Now(), Anchor: o.c.cfg.Anchor.String(), TLSKey: policy.Digest("sha256:" + hex.EncodeToString(p.key[:]))}
	pki := "its certificate's names and issuer play no part"
	if !o.c.cfg.InsecureSkipWebPKI {
		pki = "its web certificate is good for " + o.host
	}
	r.proven(StepConnection, "TLS 1.3", "%s with %s; %s", tls.VersionName(p.state.Version), p.addr, pki)
	return r
}

func (c *Client) nonce() ([]byte, error) {
	if !c.cfg.FreshEvidence {
		return nil, nil
	}
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(c.cfg.Rand, nonce); err != nil {
		return nil, fmt.Errorf("making a nonce: %w", err)
	}
	return nonce, nil
}

func (c *Client) originAt(url string) (*origin, error) {
	host, port, err := splitURL(url)
	if err != nil {
		return nil, err
	}
	return c.originOf(host, port)
}

// Verify connects to the host of an https URL and reports what it proves. The
// report is there whenever the host could be asked; the error is that of the
// network alone.
func (c *Client) Verify(ctx context.Context, url string) (*Report, error) {
	o, err := c.originAt(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Within)
	defer cancel()
	l, err := o.dial(ctx, onlyHTTP1())
	if err != nil {
		var refused *Refusal
		if errors.As(err, &refused) {
			return refused.Report, nil
		}
		return nil, err
	}
	defer l.Close()
	r, err := o.judge(ctx, l.peer())
	if err != nil && (r == nil || isNetwork(err)) {
		return r, err
	}
	return r, nil
}

// Prove connects to the host of an https URL and returns what it proved. The
// error is a *Refusal where that is not enough for a request. The connection is
// kept for one.
func (c *Client) Prove(ctx context.Context, url string) (*Report, error) {
	o, err := c.originAt(url)
	if err != nil {
		return nil, err
	}
	cn, err := o.acquire(ctx, c.cfg.OnlyHTTP1)
	if err != nil {
		return nil, err
	}
	cn.cc.Release()
	r, _ := o.standing(cn.key).get()
	return r, nil
}
