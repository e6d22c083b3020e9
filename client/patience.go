// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// youngFor is how long after a document came into force an ingress that still
	// follows an older one is asked again: its TEE makes a report for each change,
	// and at most one in a second.
	youngFor = 30 * time.Second
	// maxPatience is for how long it is, from when the first judgement found it
	// behind. It holds for an origin and what it is behind of: requests that wait
	// for one another do not wait for as long each.
	maxPatience = 5 * time.Second
	// firstPause is how long before it is asked the first time; each later pause is
	// twice as long.
	firstPause = 250 * time.Millisecond
)

// judgement is what came of asking a peer once.
type judgement struct {
	a   *proof.Attestation // nil: none could be read
	w   *word              // that it was judged by; nil: none could be read
	r   *Report
	err error
}

// judge asks the peer for its proof and follows it to the anchor. A proof that
// is refused for nothing but following an older manifest or deny list than a
// young one is asked for again, a while; every answer is judged afresh. The
// report is there whenever something was found, whatever the error says.
func (o *origin) judge(ctx context.Context, p *peer) (*Report, error) {
	pause := firstPause
	for {
		j := o.judgeOnce(ctx, p)
		if !o.behindYoung(j) || !o.follows(ctx, p, j, &pause) {
			if errors.Is(ctx.Err(), context.Canceled) { // nobody waits for a refusal any more
				return j.r, fmt.Errorf("proving %s: %w", o.addr, context.Cause(ctx))
			}
			return j.r, j.err
		}
	}
}

// behindYoung reports whether nothing speaks against the peer but that it does
// not follow yet what came into force just now.
func (o *origin) behindYoung(j *judgement) bool {
	if j.err == nil || j.w == nil || j.r == nil {
		return false
	}
	now := o.c.cfg.Now()
	young := func(since time.Time) bool { return !since.IsZero() && now.Sub(since).Abs() < youngFor }
	refuted := j.r.Refuted()
	for _, s := range refuted {
		switch {
		case s.Name == proof.StepManifest && s.Code == proof.CodeManifestBehind && young(j.w.manifestSince):
		case s.Name == proof.StepDenyList && s.Code == proof.CodeDenyListBehind && young(j.w.denyListSince):
		default:
			return false
		}
	}
	return len(refuted) > 0
}

// follows waits until the peer states that it follows another word than it did.
// It asks for the proof that is at hand, never for one made for this client:
// those are few.
func (o *origin) follows(ctx context.Context, p *peer, j *judgement, pause *time.Duration) bool {
	until, was := o.patience(j.w), &j.a.Statement
	for {
		wait := min(*pause, until.Sub(o.c.cfg.Now()))
		// A refusal that says why is worth more than a deadline that has passed.
		if end, ok := ctx.Deadline(); wait <= 0 || ok && time.Until(end) <= wait {
			return false
		}
		if o.c.cfg.Sleep(ctx, wait) != nil {
			return false
		}
		*pause *= 2
		a, err := o.attestation(ctx, p, nil)
		p.taken() // no part of a report
		if err != nil {
			return false
		}
		if is := &a.Statement; is.Manifest != was.Manifest || is.DenyList != was.DenyList {
			return true
		}
	}
}

// followed names what an ingress has to follow.
type followed struct{ manifest, denyList policy.Digest }

// patience returns until when an ingress at this origin may be behind w.
func (o *origin) patience(w *word) time.Time {
	is := followed{manifest: w.manifest.Digest}
	if w.denyList != nil {
		is.denyList = w.denyList.Digest
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	end := o.c.cfg.Now().Add(maxPatience)
	if o.behind != is || o.patient.After(end) { // also where the clock was set back
		o.behind, o.patient = is, end
	}
	return o.patient
}

// attestation reads the peer's proof for the key of its connection.
func (o *origin) attestation(ctx context.Context, p *peer, nonce []byte) (*proof.Attestation, error) {
	// An ingress with several keys may not know which one the connection has.
	path := proof.PathAttestation + "?key=" + hex.EncodeToString(p.key[:])
	if nonce != nil {
		path += "&nonce=" + base64.RawURLEncoding.EncodeToString(nonce)
	}
	raw, err := p.fetch(ctx, path)
	if err != nil {
		return nil, err
	}
	return proof.ParseAttestation(raw)
}

// sleep returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
