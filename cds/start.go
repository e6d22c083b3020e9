// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

const (
	rootKey = "root" // DER of the mesh CA, sealed with the store's key
	// headName is the key of the head, which tells a store that is in use.
	headName = ledger.HeadKey
	// sealedSeeds is where machines keep the seed sealed to themselves: readable
	// before anything else is, so not sealed with the store's key.
	sealedSeeds = "boot/seed/"
)

// errNoWay says that a way to the secret is not open now.
var errNoWay = errors.New("not possible")

// start obtains the secret in the first way that works and opens the shared
// state with it. While others hold the secret and cannot be reached it waits.
func (s *Server) start(ctx context.Context) (*core, error) {
	wait := retryMin
	for {
		c, err := s.tryStart(ctx)
		if err == nil {
			s.core.Store(c)
			s.cfg.Log.Info("CDS has its secret", "root", policy.DigestOf(c.issuer.Root().Raw), "log", c.ledger.View().Head.Size)
			return c, nil
		}
		if !errors.Is(err, errNoWay) && !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrInUse) {
			return nil, err
		}
		s.cfg.Log.Warn("CDS cannot start yet", "err", err, "retryIn", wait)
		s.wait(err.Error())
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.shares.more:
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMax)
	}
}

// way is one to the secret.
type way struct {
	name string
	seed func(context.Context) (keys.Seed, error)
}

func (s *Server) tryStart(ctx context.Context) (*core, error) {
	used, err := s.storeInUse(ctx)
	if err != nil {
		return nil, err
	}
	if used != 0 && s.cfg.ReBootstrap {
		if err := s.forget(ctx, used); err != nil {
			return nil, err
		}
		used = 0
	}
	s.cfg.ReBootstrap = false // once
	ways := []way{{"join", s.join}, {"unseal", s.unseal}, {"recover", s.shares.seed}}
	if used != 0 {
		ways = slices.Insert(ways, 0, way{"an earlier try", s.before.seed})
	}
	var problems []error
	for _, way := range ways {
		seed, err := way.seed(ctx)
		if err == nil {
			var c *core
			if c, err = s.startWith(ctx, seed, way.name); !errors.Is(err, errNoWay) {
				return c, err
			}
		}
		problems = append(problems, fmt.Errorf("%s: %w", way.name, err))
	}
	if used == 0 {
		return s.bootstrap(ctx)
	}
	err = fmt.Errorf("the store is in use and its secret is not to be had: %w", errors.Join(problems...))
	return nil, fmt.Errorf("%w: %w; waiting for a live replica (--join) or the operators' shares (c8s cds recovery restore); if both are lost, make a new CA under the same operators (--re-bootstrap)", errNoWay, err)
}

// startWith opens the shared state with a seed. One that is good, or may be, is
// kept for the next try: there may be no second way to it.
func (s *Server) startWith(ctx context.Context, seed keys.Seed, way string) (*core, error) {
	s.cfg.Log.Info("CDS starting", "by", way)
	c, err := s.open(ctx, seed)
	switch {
	case err == nil:
		s.before.forget()
	case errors.Is(err, store.ErrSealed):
		s.before.forget()
		return nil, fmt.Errorf("%w: the secret does not open what the store has: %w", errNoWay, err)
	case errors.Is(err, store.ErrNotFound):
		// Whoever gave the secret writes to another store.
		return nil, fmt.Errorf("opening the shared state: the store lacks it, but its secret is known: all replicas must use the same store, and nobody may take from it: %w", err)
	default:
		s.before.known = &seed
	}
	return c, err
}

// earlier keeps the seed that an earlier try of this process had. By pointer:
// fmt does not follow it.
type earlier struct {
	known *keys.Seed // of a CDS that could not be opened
	made  *keys.Seed // of one that was to be made, and may have been
}

func (e *earlier) forget() { *e = earlier{} }

// seed is for a store that is in use.
func (e *earlier) seed(context.Context) (keys.Seed, error) {
	for _, seed := range []*keys.Seed{e.known, e.made} {
		if seed != nil {
			return *seed, nil
		}
	}
	return keys.Seed{}, fmt.Errorf("%w: there was none that had it", errNoWay)
}

// fresh is for an empty store. It is the same again until it is known what
// became of the first: an attempt may have its effect after the next.
func (e *earlier) fresh() (keys.Seed, error) {
	if e.made == nil {
		seed, err := keys.NewSeed(rand.Reader)
		if err != nil {
			return keys.Seed{}, err
		}
		e.made = &seed
	}
	return *e.made, nil
}

// storeInUse returns the version of the head, zero if there is none.
func (s *Server) storeInUse(ctx context.Context) (store.Version, error) {
	v, err := ledger.Reach(s.cfg.Store).Get(ctx, headName)
	if isGone(err) {
		return 0, nil
	}
	return v.Version, err
}

// forget removes everything of a CDS whose secret is lost, unless somebody
// changed it meanwhile.
func (s *Server) forget(ctx context.Context, head store.Version) error {
	s.cfg.Log.Warn("forgetting the CDS that used this store", "because", "re-bootstrap")
	_, err := ledger.Reach(s.cfg.Store).Commit(ctx, store.Txn{
		If:           []store.Condition{{Key: headName, Version: head}},
		Delete:       []string{headName, rootKey, cosignedKey},
		DeletePrefix: []string{"log/", "document/", "recovery/", "countersignature/", "certificate/", "evidence/", expiryPrefix, issuancePrefix, "boot/"},
	})
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: forgetting the old state: somebody still changes it: stop all replicas of the CDS that is to be forgotten", errNoWay)
	}
	if err != nil {
		return fmt.Errorf("forgetting the old state: %w", err)
	}
	return nil
}

// open derives everything from the seed and opens the shared state.
func (s *Server) open(ctx context.Context, seed keys.Seed) (*core, error) {
	c, err := s.derive(seed)
	if err != nil {
		return nil, err
	}
	root, err := c.sealed.Get(ctx, rootKey)
	if err != nil {
		return nil, fmt.Errorf("reading the root's certificate: %w", err)
	}
	if err := c.useRoot(root.Data); err != nil {
		return nil, err
	}
	if c.clock, err = s.newClock(time.Time{}); err != nil {
		return nil, err
	}
	config, err := c.ledgerConfig()
	if err != nil {
		return nil, err
	}
	if c.ledger, err = ledger.Open(ctx, config); err != nil {
		return nil, err
	}
	if c.clock, err = s.newClock(time.Unix(c.ledger.View().Head.Time, 0)); err != nil {
		return nil, err
	}
	return c, c.prepare(ctx)
}

// bootstrap makes a new CA with an empty store. What only the winner of a race
// may write is one transaction, the sealed seed with it: a CA whose secret
// nobody has must not exist.
func (s *Server) bootstrap(ctx context.Context) (*core, error) {
	seed, err := s.before.fresh()
	if err != nil {
		return nil, err
	}
	c, err := s.derive(seed)
	if err != nil {
		return nil, err
	}
	if c.clock, err = s.newClock(time.Time{}); err != nil {
		return nil, err
	}
	root, err := ca.NewRoot(c.trustDomain, c.keys.Root, c.clock.Now())
	if err != nil {
		return nil, err
	}
	if err := c.useRoot(root); err != nil {
		return nil, err
	}
	c.policies = &policies{c: c}
	given := s.cfg.Manifest
	if err := c.policies.keep(ctx, given.Digest, given.Envelope); err != nil {
		return nil, err
	}
	if err := s.create(ctx, c, root); err != nil {
		return nil, errors.Join(err, c.policies.discard(ctx, given.Digest, err))
	}
	s.cfg.Log.Warn("CDS is new: it made a CA of its own", "trustDomain", c.trustDomain, "manifest", given.Manifest.Version)
	return s.startWith(ctx, seed, "bootstrap")
}

// create makes the first shared state.
func (s *Server) create(ctx context.Context, c *core, root []byte) error {
	config, err := c.ledgerConfig()
	if err != nil {
		return err
	}
	boot, err := c.sealedSeed(ctx)
	if err != nil && !errors.Is(err, attest.ErrNoSealing) {
		return err
	}
	if config.Store, err = store.Sealed(beside{s.cfg.Store, boot}, c.keys.Store); err != nil {
		return err
	}
	_, err = ledger.Create(ctx, config, func(d *ledger.Draft) error {
		if _, err := d.Append(translog.Entry{Type: translog.TypeBundle, Time: d.Now, Digest: c.bundle.Digest()}); err != nil {
			return err
		}
		d.Head.Manifest = refOf(s.cfg.Manifest)
		return c.record(d, trust.ManifestSubject(s.cfg.Manifest))
	}, store.Item{Key: rootKey, Data: root})
	return err
}

// beside adds items to every transaction that are not sealed with the store's
// key.
type beside struct {
	store.Store
	items []store.Item
}

func (b beside) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	t.Put = append(slices.Clip(t.Put), b.items...)
	return b.Store.Commit(ctx, t)
}

func (s *Server) derive(seed keys.Seed) (*core, error) {
	c := &core{s: s, touch: newTouch(), trustDomain: s.cfg.Manifest.Manifest.TrustDomain, seed: &seed, verified: appraise.NewCache(machinesRemembered), peers: newPeers(), endorsement: endorsements{turn: make(chan struct{}, 1)}}
	var err error
	if c.keys, err = keys.Derive(seed, c.trustDomain); err != nil {
		return nil, err
	}
	sealed, err := store.Sealed(s.cfg.Store, c.keys.Store)
	if err != nil {
		return nil, err
	}
	c.sealed = ledger.Reach(sealed)
	return c, nil
}

// useRoot takes the mesh CA's certificate, which must be of the seed.
func (c *core) useRoot(der []byte) error {
	root, err := ca.OpenRoot(der, c.keys.Root)
	if err != nil {
		return err
	}
	if c.issuer, err = ca.NewIssuer(root, c.s.cfg.CertificateLife, func() time.Time { return c.clock.Now() }); err != nil {
		return err
	}
	c.roots = x509.NewCertPool()
	c.roots.AddCert(root.Certificate())
	c.root = root
	c.bundle, err = trust.NewBundle(c.trustDomain, der, c.keys, c.s.cfg.Operators)
	return err
}

func (c *core) ledgerConfig() (ledger.Config, error) {
	origin := trust.LogOrigin(c.trustDomain)
	signer, err := translog.NewSigner(origin, c.keys.Log)
	return ledger.Config{
		Store: c.sealed, Origin: origin, Signer: signer,
		Now: func() time.Time { return c.clock.Now() }, Log: c.s.cfg.Log, Observe: c.s.metrics.commit,
	}, err
}

// prepare makes what needs the shared state.
func (c *core) prepare(ctx context.Context) error {
	verifier, err := c.bundle.LogVerifier()
	if err != nil {
		return err
	}
	c.checkpoints = newCheckpoints(trust.LogOrigin(c.trustDomain), verifier)
	c.challenges = newChallenges(c.clock.Now)
	c.evidence = newEvidenceStore(c.clock.Now, c.sealed, c.s.cfg.Limits)
	c.issuances = &issuances{now: c.clock.Now, store: c.sealed, ledger: c.ledger}
	if c.policies, err = openPolicies(ctx, c); err != nil {
		return err
	}
	return c.sealSeed(ctx)
}
