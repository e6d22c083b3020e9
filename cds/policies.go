// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// maxChain bounds how many manifests a replica that was away catches up with.
	maxChain = 4096
	// maxPiece is how much of a document one value of the store holds.
	maxPiece = store.MaxTxnBytes / 2
)

// inForce is what the operators' word is at one moment. It does not change.
type inForce struct {
	manifest *policy.Signed
	deny     *policy.SignedDenyList // nil: there is none
	pending  *policy.Signed         // nil: there is none

	manifestRef, denyRef, pendingRef ledger.Ref // in the head these were read from
	notBefore                        time.Time  // of pending
	manifestProof, denyProof         []byte     // countersignatures, DSSE envelopes
}

// denyList is nil without one, which denies nothing.
func (f *inForce) denyList() *policy.DenyList {
	if f.deny == nil {
		return nil
	}
	return f.deny.List
}

// matches reports whether a draft is made under this policy.
func (f *inForce) matches(h ledger.Head) bool {
	return h.Manifest == f.manifestRef && h.DenyList == f.denyRef
}

// policies follows the head and verifies every document it names itself,
// signatures and chain, whichever replica put it there.
type policies struct {
	c *core

	mu      sync.Mutex // held for moments only: every call reads the policy
	now     *inForce
	changed chan struct{} // closed when now is replaced
}

func (p *policies) current() *inForce {
	now, _ := p.watch()
	return now
}

// watch returns the policy in force and a channel that is closed when it no
// longer is.
func (p *policies) watch() (*inForce, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.changed
}

func (p *policies) install(f *inForce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = f
	close(p.changed)
	p.changed = make(chan struct{})
}

// openPolicies reads what the head names. The operators this replica was
// launched for must have signed the manifest.
func openPolicies(ctx context.Context, c *core) (*policies, error) {
	p := &policies{c: c, changed: make(chan struct{})}
	head := c.ledger.View().Head
	envelope, err := p.document(ctx, head.Manifest.Digest)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest in force: %w", err)
	}
	signed, err := policy.Open(envelope, c.s.cfg.Operators)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest in force: %w (if the operators changed, start with operators and a manifest of theirs)", err)
	}
	p.now = &inForce{manifest: signed, manifestRef: ledger.Ref{Version: signed.Manifest.Version, Digest: signed.Digest}}
	if p.now.manifestRef != head.Manifest {
		return nil, fmt.Errorf("opening the manifest in force: the store has %v under the name of %v", p.now.manifestRef, head.Manifest)
	}
	return p, p.load(ctx, head)
}

// follow keeps the policy at what the head says, and puts a pending manifest
// in force when its time has come.
func (p *policies) follow(ctx context.Context) error {
	wait := retryMin
	for {
		view, moved := p.c.ledger.Watch()
		err := p.load(ctx, view.Head)
		pause := p.untilActivation()
		if err == nil && pause <= 0 {
			err = p.activate(ctx)
			pause = retryMin
		}
		if err != nil && ctx.Err() == nil {
			p.c.s.cfg.Log.Error("following the operators' word failed", "err", err, "retryIn", wait)
			pause, wait = wait, min(2*wait, retryMax)
		} else {
			wait = retryMin
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// untilActivation is how long the pending manifest has to wait: an hour at
// most, since clocks are corrected.
func (p *policies) untilActivation() time.Duration {
	now := p.current()
	if now.pending == nil {
		return time.Hour
	}
	return min(time.Hour, now.notBefore.Sub(p.c.clock.Now()))
}

// load adopts what head names and this replica does not have yet.
func (p *policies) load(ctx context.Context, head ledger.Head) (err error) {
	now := p.current()
	if now.matches(head) && now.pendingRef == head.Pending && now.manifestProof != nil {
		return nil
	}
	next := *now
	if head.Manifest != now.manifestRef {
		if next.manifest, err = p.succeed(ctx, now.manifest, head.Manifest); err != nil {
			return err
		}
		next.manifestRef, next.manifestProof = head.Manifest, nil
	}
	if next.manifestProof == nil {
		if next.manifestProof, err = p.countersignature(ctx, head.Manifest); err != nil {
			return err
		}
	}
	if head.DenyList != now.denyRef {
		if next.deny, err = p.openDenyList(ctx, now.deny, next.manifest, head.DenyList); err != nil {
			return err
		}
		if next.denyProof, err = p.countersignature(ctx, head.DenyList); err != nil {
			return err
		}
		next.denyRef = head.DenyList
	}
	if next.pending, err = p.openPending(ctx, &next, head); err != nil {
		return err
	}
	next.pendingRef, next.notBefore = head.Pending, time.Unix(head.NotBefore, 0)
	p.install(&next)
	if head.Manifest != now.manifestRef {
		p.c.s.cfg.Log.Info("manifest in force", "version", head.Manifest.Version, "digest", head.Manifest.Digest, "signers", next.manifest.Signers)
	}
	if head.DenyList != now.denyRef {
		p.c.s.cfg.Log.Info("deny list in force", "version", head.DenyList.Version, "digest", head.DenyList.Digest, "entries", len(next.deny.List.Entries))
	}
	return nil
}

// succeed walks from the manifest that ref names back to prev, and then
// forward again, checking every step as if it had just been published.
func (p *policies) succeed(ctx context.Context, prev *policy.Signed, ref ledger.Ref) (*policy.Signed, error) {
	var chain [][]byte
	for digest := ref.Digest; digest != prev.Digest; {
		if len(chain) == maxChain {
			return nil, fmt.Errorf("following the manifests: more than %d steps from version %d to %d", maxChain, prev.Manifest.Version, ref.Version)
		}
		envelope, err := p.document(ctx, digest)
		if err != nil {
			return nil, fmt.Errorf("following the manifests: %w", err)
		}
		e, err := policy.ParseEnvelope(envelope)
		if err != nil {
			return nil, fmt.Errorf("following the manifests: %w", err)
		}
		m, err := policy.Parse(e.Payload)
		if err != nil {
			return nil, fmt.Errorf("following the manifests: %w", err)
		}
		chain = append(chain, envelope)
		digest = m.Previous
	}
	now := prev
	for _, envelope := range slices.Backward(chain) {
		next, err := policy.Open(envelope, now.Manifest.Operators)
		if err != nil {
			return nil, fmt.Errorf("following the manifests: %w", err)
		}
		if err := policy.Succeeds(now, next).Err(); err != nil {
			return nil, fmt.Errorf("following the manifests: %w", err)
		}
		now = next
	}
	return now, nil
}

func (p *policies) openDenyList(ctx context.Context, prev *policy.SignedDenyList, manifest *policy.Signed, ref ledger.Ref) (*policy.SignedDenyList, error) {
	envelope, err := p.document(ctx, ref.Digest)
	if err != nil {
		return nil, fmt.Errorf("opening the deny list: %w", err)
	}
	next, err := policy.OpenDenyList(envelope, manifest.Manifest.Operators)
	if err != nil {
		return nil, fmt.Errorf("opening the deny list: %w", err)
	}
	if next.Digest != ref.Digest || next.List.Version != ref.Version || prev != nil && next.List.Version < prev.List.Version {
		return nil, fmt.Errorf("opening the deny list: the store has version %d (%s) under the name of %v", next.List.Version, next.Digest, ref)
	}
	return next, nil
}

func (p *policies) openPending(ctx context.Context, now *inForce, head ledger.Head) (*policy.Signed, error) {
	if head.Pending.IsZero() {
		return nil, nil
	}
	return p.succeed(ctx, now.manifest, head.Pending)
}

// keep stores a signed document in pieces that any store takes, before a head
// names it. One that never gets there is of no consequence. A document has many
// envelopes, and anybody can make another of one he has: the first stays, and
// pieces of two never mix.
func (p *policies) keep(ctx context.Context, d policy.Digest, envelope []byte) error {
	_, err := p.document(ctx, d)
	if !isGone(err) {
		return err
	}
	prefix := fmt.Sprintf("%s%x/", p.prefix(d), sha256.Sum256(envelope))
	for n, piece := range slices.Collect(slices.Chunk(envelope, maxPiece)) {
		item := store.Item{Key: fmt.Sprintf("%s%04d", prefix, n), Data: piece}
		if _, err := p.c.sealed.Commit(ctx, store.Txn{Put: []store.Item{item}}); err != nil {
			return fmt.Errorf("keeping a document: %w", err)
		}
	}
	return nil
}

// document reads a signed document by the digest of its payload.
func (p *policies) document(ctx context.Context, d policy.Digest) ([]byte, error) {
	if !d.Valid() {
		return nil, fmt.Errorf("reading a document: %w: %.80q is no digest", store.ErrNotFound, d)
	}
	var envelopes [][]byte
	last := ""
	err := p.c.sealed.Scan(ctx, p.prefix(d), func(key string, v store.Value) error {
		if of := path.Dir(key); of != last {
			envelopes, last = append(envelopes, nil), of
		}
		envelopes[len(envelopes)-1] = append(envelopes[len(envelopes)-1], v.Data...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading document %s: %w", d, err)
	}
	for _, envelope := range envelopes { // a crash may have left half of one
		if e, err := policy.ParseEnvelopeOf(envelope, policy.MaxDenyListEnvelope); err == nil && policy.DigestOf(e.Payload) == d {
			return envelope, nil
		}
	}
	return nil, fmt.Errorf("reading document %s: %w", d, store.ErrNotFound)
}

// discard removes a document of a CDS that another was faster than. What is
// left if that fails is in nobody's way.
func (p *policies) discard(ctx context.Context, d policy.Digest, because error) error {
	if !errors.Is(because, ledger.ErrInUse) {
		return nil
	}
	_, err := p.c.sealed.Commit(ctx, store.Txn{DeletePrefix: []string{p.prefix(d)}})
	return err
}

// prefix is where the envelopes of a document are. It names this CDS: several
// that are made at once in one store must not write over each other's.
func (p *policies) prefix(d policy.Digest) string {
	return fmt.Sprintf("document/%s/%s/", policy.DigestOf(p.c.issuer.Root().Raw), d)
}

func (p *policies) countersignature(ctx context.Context, ref ledger.Ref) ([]byte, error) {
	v, err := p.c.sealed.Get(ctx, countersignatureKey(ref.Digest))
	if err != nil {
		return nil, fmt.Errorf("reading the countersignature of %s: %w", ref.Digest, err)
	}
	return v.Data, nil
}

func countersignatureKey(d policy.Digest) string { return "countersignature/" + string(d) }
