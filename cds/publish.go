// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"time"

	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// errPolicyMoved says that a change was prepared under a policy that is no
// longer in force. It is prepared again.
var errPolicyMoved = errors.New("the policy in force has changed")

// maxPolicyMoves bounds how often a change is prepared again.
const maxPolicyMoves = 8

// underPolicy calls try with the policy in force until the ledger agrees that
// it was. So nothing is decided by an older policy than the one in force.
func (p *policies) underPolicy(ctx context.Context, try func(*inForce) error) error {
	for range maxPolicyMoves {
		now, changed := p.watch()
		err := try(now)
		if !errors.Is(err, errPolicyMoved) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryMax): // the head says so, but the document cannot be read
			return &refusal{code: codePolicyChanging, detail: "the policy that the head names cannot be read", retryAfter: retryAtLeast}
		}
	}
	return &refusal{code: codePolicyChanging, detail: "the policy changed again and again", retryAfter: retryAtLeast}
}

// Publish puts a new operator-signed manifest in force, after the same checks
// as a publication over the network.
func (s *Server) Publish(ctx context.Context, envelope []byte) error {
	c, err := s.ready()
	if err == nil {
		_, err = c.policies.publishManifest(ctx, envelope)
	}
	if err != nil {
		s.metrics.refused.WithLabelValues(codeOf(err)).Inc()
		s.cfg.Log.Warn("manifest refused", "code", codeOf(err), "err", err)
	}
	return err
}

// published says what became of a document.
type published struct {
	version   uint64
	notBefore time.Time // zero: it is in force
}

// catchUp makes this replica judge by what holds for all of them now: another
// may have changed it a moment ago, or long ago while this one was cut off.
func (p *policies) catchUp(ctx context.Context) error {
	if err := p.c.ledger.Err(); err != nil {
		return err
	}
	if err := p.c.ledger.Refresh(ctx); err != nil {
		return err
	}
	return p.settled(ctx)
}

func (p *policies) publishManifest(ctx context.Context, envelope []byte) (out *published, err error) {
	if err := p.catchUp(ctx); err != nil {
		return nil, err
	}
	err = p.underPolicy(ctx, func(now *inForce) error {
		next, err := policy.Open(envelope, now.manifest.Manifest.Operators)
		if err != nil {
			return err
		}
		if err := policy.Succeeds(now.manifest, next).Err(); err != nil {
			return err
		}
		if err := checkDenyListKeeps(now, next); err != nil {
			return err
		}
		out = &published{version: next.Manifest.Version}
		at, locked := next.Manifest.NotBeforeTime()
		locked = locked && at.After(p.c.clock.Now())
		if locked {
			out.notBefore = at
			if refOf(next) == now.pendingRef {
				return nil
			}
		}
		if err := p.keep(ctx, next.Digest, envelope); err != nil {
			return err
		}
		if locked {
			return p.postpone(ctx, now, next, at)
		}
		return p.settle(ctx, p.putInForce(ctx, now, next))
	})
	return out, err
}

// checkDenyListKeeps: whoever judges by the next manifest must be able to
// open the deny list, so its operators must have signed that too.
func checkDenyListKeeps(now *inForce, next *policy.Signed) error {
	if now.deny == nil {
		return nil
	}
	if _, err := policy.OpenDenyList(now.deny.Envelope, next.Manifest.Operators); err != nil {
		return refuse(codeDenyListOrphaned, "the operators of manifest %d did not sign deny list %d (%v): sign it with their keys too and publish it first", next.Manifest.Version, now.deny.List.Version, err)
	}
	return nil
}

func refOf(s *policy.Signed) ledger.Ref {
	return ledger.Ref{Version: s.Manifest.Version, Digest: s.Digest}
}

// putInForce makes next the manifest in force. Whatever waited for its time is
// dropped: it follows the manifest before, and can never follow this one.
func (p *policies) putInForce(ctx context.Context, now *inForce, next *policy.Signed) error {
	_, err := p.c.ledger.Do(ctx, func(d *ledger.Draft) error {
		if !now.matches(d.Head) || d.Head.Pending != now.pendingRef {
			return errPolicyMoved
		}
		d.Head.Manifest = refOf(next)
		d.Head.Pending, d.Head.NotBefore = ledger.Ref{}, 0
		return p.c.record(d, trust.ManifestSubject(next))
	})
	return err
}

func (p *policies) postpone(ctx context.Context, now *inForce, next *policy.Signed, at time.Time) error {
	ref := refOf(next)
	if now.pending != nil && ref.Version <= now.pendingRef.Version {
		return refuse(codePending, "version %d waits for %s: a manifest that replaces it needs a higher version than %d", now.pendingRef.Version, now.notBefore.UTC().Format(time.RFC3339), ref.Version)
	}
	_, err := p.c.ledger.Do(ctx, func(d *ledger.Draft) error {
		if !now.matches(d.Head) || d.Head.Pending != now.pendingRef {
			return errPolicyMoved
		}
		d.Head.Pending, d.Head.NotBefore = ref, at.Unix()
		_, err := d.Append(translog.Entry{
			Type: translog.TypePending, Time: d.Now, Digest: ref.Digest, Version: ref.Version, Previous: next.Manifest.Previous, NotBefore: at,
		})
		return err
	})
	return p.settle(ctx, err)
}

// activate puts the pending manifest in force when its time has come. Its
// caller adopts it: to wait for that here would be to wait for oneself.
func (p *policies) activate(ctx context.Context) error {
	now := p.current()
	if now.pending == nil || p.c.clock.Now().Before(now.notBefore) {
		return nil
	}
	// The deny list may be a newer one than when the manifest was published.
	if err := checkDenyListKeeps(now, now.pending); err != nil {
		return err
	}
	err := p.putInForce(ctx, now, now.pending)
	if errors.Is(err, errPolicyMoved) {
		return nil // another replica was faster, or another manifest takes its place
	}
	return err
}

func (p *policies) publishDenyList(ctx context.Context, envelope []byte) (out *published, err error) {
	if err := p.catchUp(ctx); err != nil {
		return nil, err
	}
	err = p.underPolicy(ctx, func(now *inForce) error {
		next, err := policy.OpenDenyList(envelope, now.manifest.Manifest.Operators)
		if err != nil {
			return err
		}
		if next.List.TrustDomain != p.c.trustDomain {
			return policy.Decision{Code: policy.CodeTrustDomain, Rule: "trustDomain", Expected: p.c.trustDomain, Actual: next.List.TrustDomain}
		}
		// A CDS that was made anew knows none of the lists before.
		decision := policy.DenyListSucceeds(now.deny, next)
		if anew := now.deny == nil && decision.Code == policy.CodeDenyListGap; !anew {
			if err := decision.Err(); err != nil {
				return err
			}
		}
		if err := p.keep(ctx, next.Digest, envelope); err != nil {
			return err
		}
		out = &published{version: next.List.Version}
		_, err = p.c.ledger.Do(ctx, func(d *ledger.Draft) error {
			if !now.matches(d.Head) {
				return errPolicyMoved
			}
			d.Head.DenyList = ledger.Ref{Version: next.List.Version, Digest: next.Digest}
			return p.c.record(d, trust.DenyListSubject(next))
		})
		return p.settle(ctx, err)
	})
	return out, err
}

// record logs a document that comes into force, and countersigns it.
func (c *core) record(d *ledger.Draft, subject trust.Subject) error {
	kind := translog.TypeManifest
	if subject.Kind == trust.KindDenyList {
		kind = translog.TypeDenylist
	}
	index, err := d.Append(translog.Entry{Type: kind, Time: d.Now, Digest: subject.Digest, Version: subject.Version, Previous: subject.Previous})
	if err != nil {
		return err
	}
	proof, err := trust.Countersign(c.keys.Countersign, subject, uint64(index), d.Now) //nolint:gosec // not negative
	if err != nil {
		return err
	}
	d.Put(store.Item{Key: countersignatureKey(subject.Digest), Data: proof})
	return nil
}

// settle waits, unless err says that nothing was recorded, until this replica
// itself judges by what was: who published hears of it when it is true. It is
// for callers, never for follow.
func (p *policies) settle(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	return p.settled(ctx)
}

// settled waits until what this replica judges by is what the head names.
func (p *policies) settled(ctx context.Context) error {
	for {
		now, changed := p.watch()
		head := p.c.ledger.View().Head
		if now.matches(head) && now.pendingRef == head.Pending {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
