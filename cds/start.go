// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/handover"
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

func (s *Server) tryStart(ctx context.Context) (*core, error) {
	used, err := s.storeInUse(ctx)
	if err != nil {
		return nil, err
	}
	if used && s.cfg.ReBootstrap {
		if err := s.forget(ctx); err != nil {
			return nil, err
		}
		used = false
	}
	s.cfg.ReBootstrap = false // once
	var problems []error
	for _, way := range []struct {
		name string
		seed func(context.Context) (keys.Seed, error)
	}{{"join", s.join}, {"unseal", s.unseal}, {"recover", s.shares.seed}} {
		seed, err := way.seed(ctx)
		if err == nil {
			s.cfg.Log.Info("CDS starting", "by", way.name)
			c, err := s.open(ctx, seed)
			if errors.Is(err, store.ErrNotFound) {
				// Whoever gave the secret writes to another store.
				return nil, fmt.Errorf("opening the shared state: the store has none, but the secret of one is known: all replicas must use the same store: %w", err)
			}
			return c, err
		}
		problems = append(problems, fmt.Errorf("%s: %w", way.name, err))
	}
	if !used {
		return s.bootstrap(ctx)
	}
	err = fmt.Errorf("the store is in use and its secret is not to be had: %w", errors.Join(problems...))
	return nil, fmt.Errorf("%w: %w; waiting for a live replica (--join) or the operators' shares (c8s cds recovery restore); if both are lost, make a new CA under the same operators (--re-bootstrap)", errNoWay, err)
}

func (s *Server) storeInUse(ctx context.Context) (bool, error) {
	_, err := s.cfg.Store.Get(ctx, headName)
	switch {
	case err == nil:
		return true, nil
	case isGone(err):
		return false, nil
	}
	return false, fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
}

// forget removes everything of a CDS whose secret is lost.
func (s *Server) forget(ctx context.Context) error {
	s.cfg.Log.Warn("forgetting the CDS that used this store", "because", "re-bootstrap")
	_, err := s.cfg.Store.Commit(ctx, store.Txn{
		Delete:       []string{headName, rootKey},
		DeletePrefix: []string{"log/", "document/", "recovery/", "countersignature/", "certificate/", "evidence/", expiryPrefix, "boot/"},
	})
	if err != nil {
		return fmt.Errorf("%w: forgetting the old state: %w", ledger.ErrUnavailable, err)
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

// bootstrap makes a new CA with an empty store.
func (s *Server) bootstrap(ctx context.Context) (*core, error) {
	seed, err := keys.NewSeed(rand.Reader)
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
	config, err := c.ledgerConfig()
	if err != nil {
		return nil, err
	}
	c.ledger, err = ledger.Create(ctx, config, func(d *ledger.Draft) error {
		if _, err := d.Append(translog.Entry{Type: translog.TypeBundle, Time: d.Now, Digest: c.bundle.Digest()}); err != nil {
			return err
		}
		d.Head.Manifest = refOf(given)
		return c.record(d, trust.ManifestSubject(given))
	}, store.Item{Key: rootKey, Data: root})
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Warn("CDS is new: it made a CA of its own", "trustDomain", c.trustDomain, "manifest", given.Manifest.Version)
	return c, c.prepare(ctx)
}

func (s *Server) derive(seed keys.Seed) (*core, error) {
	c := &core{s: s, touch: newTouch(), trustDomain: s.cfg.Manifest.Manifest.TrustDomain, seed: &seed, verified: appraise.NewCache(machinesRemembered), peers: newPeers()}
	var err error
	if c.keys, err = keys.Derive(seed, c.trustDomain); err != nil {
		return nil, err
	}
	c.sealed, err = store.Sealed(s.cfg.Store, c.keys.Store)
	return c, err
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
	if c.policies, err = openPolicies(ctx, c); err != nil {
		return err
	}
	return c.sealSeed(ctx)
}

// sealSeed keeps the seed for the next start of this program on this machine,
// where the TEE can derive a key for that.
func (c *core) sealSeed(ctx context.Context) error {
	key, name, err := c.s.sealingKey(ctx)
	if errors.Is(err, attest.ErrNoSealing) {
		c.s.cfg.Log.Info("this TEE seals nothing: after a restart the secret comes from another replica or from the operators' shares")
		return nil
	}
	if err != nil {
		return err
	}
	sealed, err := handover.SealSeed(key, c.trustDomain, c.s.cfg.Operators.Digest(), *c.seed)
	if err != nil {
		return err
	}
	if _, err := c.s.cfg.Store.Commit(ctx, store.Txn{Put: []store.Item{{Key: name, Data: sealed}}}); err != nil {
		return fmt.Errorf("%w: keeping the sealed seed: %w", ledger.ErrUnavailable, err)
	}
	return nil
}

// unseal reads the seed this program kept on this machine.
func (s *Server) unseal(ctx context.Context) (keys.Seed, error) {
	key, name, err := s.sealingKey(ctx)
	if err != nil {
		return keys.Seed{}, err
	}
	v, err := s.cfg.Store.Get(ctx, name)
	if err != nil {
		return keys.Seed{}, fmt.Errorf("reading the sealed seed: %w", err)
	}
	return handover.OpenSeed(key, s.cfg.Manifest.Manifest.TrustDomain, s.cfg.Operators.Digest(), v.Data)
}

// sealingKey asks the TEE, and names the value sealed with it: by the key
// itself, since nothing else knows the machine before it is attested.
func (s *Server) sealingKey(ctx context.Context) (key [32]byte, name string, err error) {
	sealer, ok := s.cfg.Attester.(attest.Sealer)
	if !ok {
		return key, "", attest.ErrNoSealing
	}
	if key, err = sealer.SealingKey(ctx, handover.SealingPurpose); err != nil {
		return key, "", fmt.Errorf("asking the TEE for a sealing key: %w", err)
	}
	sum := sha256.Sum256(append([]byte("c8s/cds-seed-name/v1\x00"), key[:]...))
	return key, sealedSeeds + hex.EncodeToString(sum[:16]), nil
}
