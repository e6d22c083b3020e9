// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// maxKits bounds the recovery documents that shares are collected for at once.
const maxKits = 8

// shares collects the operators' recovery shares while this CDS has no secret.
// The document they are of must be signed by the operators: anybody could make
// one, with a secret he knows.
type shares struct {
	more chan struct{} // signalled when there is another share

	mu   sync.Mutex
	kits map[policy.Digest]*recovery.Collector
}

func newShares() *shares {
	return &shares{more: make(chan struct{}, 1), kits: map[policy.Digest]*recovery.Collector{}}
}

// seed combines the shares once there are enough.
func (s *shares) seed(context.Context) (keys.Seed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := []error{fmt.Errorf("%w: not enough of the operators' recovery shares", errNoWay)}
	for _, kit := range s.kits {
		if kit.Missing() > 0 {
			continue
		}
		seed, err := kit.Seed()
		if err == nil {
			clear(s.kits)
			return seed, nil
		}
		problems = append(problems, err)
	}
	return keys.Seed{}, errors.Join(problems...)
}

func (s *shares) add(document *recovery.Document, share recovery.Share) (have, need int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	digest := document.Digest()
	kit := s.kits[digest]
	if kit == nil {
		if len(s.kits) >= maxKits {
			return 0, 0, refuse(codeShare, "shares of %d recovery documents are collected already", maxKits)
		}
		if kit, err = recovery.NewCollector(document); err != nil {
			return 0, 0, refuse(codeShare, "%v", err)
		}
	}
	if err := kit.Add(share); err != nil {
		return 0, 0, refuse(codeShare, "%v", err)
	}
	s.kits[digest] = kit // only now: old documents are public, their shares are not
	select {
	case s.more <- struct{}{}:
	default:
	}
	return document.Threshold - kit.Missing(), document.Threshold, nil
}

// recoveryAPI is the Recovery service.
type recoveryAPI Server

var _ api.RecoveryHandler = (*recoveryAPI)(nil)

// Restore takes a share. The operator's client has verified this CDS's
// evidence on the connection the share comes on.
func (r *recoveryAPI) Restore(_ context.Context, req *api.RestoreRequest) (*api.RestoreResponse, error) {
	if r.core.Load() != nil {
		return nil, refuse(codeNotRecovering, "this CDS has its secret")
	}
	kit, err := policy.OpenPayload(req.GetKit(), api.RecoveryKitType, maxRequest, r.cfg.Operators)
	if err != nil {
		return nil, err
	}
	document, err := recovery.Parse(kit.Payload)
	if err != nil {
		return nil, refuse(codeShare, "%v", err)
	}
	if want := r.cfg.Manifest.Manifest.TrustDomain; document.TrustDomain != want {
		return nil, refuse(codeShare, "the recovery document is of trust domain %q, want %q", document.TrustDomain, want)
	}
	share, err := recovery.ParseShare(req.GetShare())
	if err != nil {
		return nil, refuse(codeShare, "%v", err)
	}
	have, need, err := r.shares.add(document, share)
	if err != nil {
		return nil, err
	}
	r.cfg.Log.Warn("recovery share received", "document", document.Digest(), "have", have, "need", need)
	return &api.RestoreResponse{Have: int32(have), Need: int32(need)}, nil //nolint:gosec // small
}

// keepShares makes recovery shares for the operators that the manifest in
// force names, and makes them anew when it names others.
func (c *core) keepShares(ctx context.Context) error {
	for {
		now, changed := c.policies.watch()
		if err := c.share(ctx, now); err != nil && ctx.Err() == nil {
			c.s.cfg.Log.Error("recovery shares not made", "err", err, "retryIn", retryMax)
			if err := pauseFor(ctx, retryMax); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (c *core) share(ctx context.Context, now *inForce) error {
	to := now.manifest.Manifest.Recovery
	if to == nil {
		return nil
	}
	section, err := json.Marshal(to)
	if err != nil {
		return err
	}
	wanted := policy.DigestOf(section)
	if c.ledger.View().Head.Recovery.For == wanted {
		return nil
	}
	document, raw, err := c.split(to)
	if err != nil {
		return err
	}
	digest := document.Digest()
	_, err = c.ledger.Do(ctx, func(d *ledger.Draft) error {
		if !now.matches(d.Head) {
			return errPolicyMoved
		}
		if d.Head.Recovery.For == wanted {
			return errShared
		}
		d.Head.Recovery = ledger.Recovery{For: wanted, Document: digest}
		d.Put(store.Item{Key: recoveryKey(digest), Data: raw})
		_, err := d.Append(translog.Entry{Type: translog.TypeRecovery, Time: d.Now, Digest: digest, Threshold: document.Threshold, Shares: len(document.Shares)})
		return err
	})
	if errors.Is(err, errPolicyMoved) || errors.Is(err, errShared) {
		return nil // another replica was faster, or the next policy is on its way
	}
	if err == nil {
		c.s.cfg.Log.Warn("recovery shares made", "document", digest, "threshold", document.Threshold, "shares", len(document.Shares))
	}
	return err
}

var errShared = errors.New("the shares are there already")

func (c *core) split(to *policy.Recovery) (*recovery.Document, []byte, error) {
	recipients := make([]recovery.Recipient, 0, len(to.Keys))
	for _, k := range to.Keys {
		public, err := k.Public()
		if err != nil {
			return nil, nil, err
		}
		recipients = append(recipients, recovery.Recipient{Name: k.Name, Public: [32]byte(public.Bytes())})
	}
	document, err := recovery.Split(*c.seed, to.Threshold, recipients, c.trustDomain)
	if err != nil {
		return nil, nil, err
	}
	raw, err := document.Encode()
	return document, raw, err
}

func recoveryKey(d policy.Digest) string { return "recovery/" + string(d) }

// recoveryDocument is the one of the head.
func (c *core) recoveryDocument(ctx context.Context) ([]byte, error) {
	digest := c.ledger.View().Head.Recovery.Document
	if digest == "" {
		return nil, store.ErrNotFound
	}
	v, err := c.sealed.Get(ctx, recoveryKey(digest))
	return v.Data, err
}
