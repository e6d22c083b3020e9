// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/clock"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

const (
	machinesRemembered = 1024 // whose verified certificates are not verified again, about 20 KB each
	// retryMin and retryMax bound the pauses between tries of what the service
	// needs itself.
	retryMin, retryMax = 200 * time.Millisecond, 10 * time.Second
	// maxSkew is how far another replica's clock may be ahead before this one
	// stops issuing: one of the two is wrong.
	maxSkew = time.Minute
)

// core is a replica that has the secret.
type core struct {
	s           *Server
	trustDomain string
	seed        *keys.Seed // by pointer: fmt does not follow it
	keys        *keys.Keys
	bundle      *trust.Bundle
	sealed      store.Store
	ledger      *ledger.Ledger
	clock       *clock.Clock
	root        *ca.Root
	issuer      *ca.Issuer
	roots       *x509.CertPool
	peers       *peers
	policies    *policies
	touch       *touch
	challenges  *challenges
	evidence    *evidenceStore
	issuances   *issuances
	verified    *appraise.Cache
	beacons     beacons
	endorsement endorsements
	checkpoints checkpoints
}

// run works until ctx ends.
func (c *core) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		c.ledger.Run, c.policies.follow, c.keepIssuing, c.evidence.keepTidy, c.issuances.keepTidy, c.publishGiven, c.keepShares, c.keepInTouch,
	} {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// ready returns the core once there is one.
func (s *Server) ready() (*core, error) {
	if c := s.core.Load(); c != nil {
		return c, nil
	}
	return nil, &refusal{code: codeNotReady, detail: "waiting for " + *s.starting.Load(), retryAfter: retryAtLeast}
}

// issuing returns the core if it can issue.
func (s *Server) issuing() (*core, error) {
	c, err := s.ready()
	if err != nil {
		return nil, err
	}
	return c, c.canIssue()
}

func (c *core) canIssue() error {
	if err := c.ledger.Err(); err != nil {
		return err
	}
	err := c.issuer.Ready()
	if err == nil {
		err = c.issuerDenied(c.policies.current())
	}
	if err != nil {
		return &refusal{code: codeNotReady, detail: "no issuing key can be used: " + err.Error(), retryAfter: retryAtLeast}
	}
	now, head := c.clock.Now(), time.Unix(c.ledger.View().Head.Time, 0)
	if ahead := head.Sub(now); ahead > maxSkew {
		return &refusal{code: codeNotReady, detail: fmt.Sprintf("another replica's clock is %s ahead of this one's, at most %s is accepted: set the clocks right", ahead, maxSkew)}
	}
	return nil
}

// Ready says why this replica cannot issue, or nil.
func (s *Server) Ready() error {
	_, err := s.issuing()
	return err
}

// Manifest returns the manifest in force, as far as this replica knows.
func (s *Server) Manifest() *policy.Signed {
	if c := s.core.Load(); c != nil {
		return c.policies.current().manifest
	}
	return s.cfg.Manifest
}

// keepIssuing has an issuing key of this replica in use, made anew before it
// ends, and when the operators deny it. It is attested, and in the log before
// it signs.
func (c *core) keepIssuing(ctx context.Context) error {
	wait := retryMin
	for {
		now, changed := c.policies.watch()
		pause := c.issuer.RenewAt().Sub(c.clock.Now())
		if pause <= 0 || c.issuerDenied(now) != nil {
			err := c.newIntermediate(ctx)
			if err == nil {
				wait = retryMin
				continue
			}
			c.s.cfg.Log.Error("issuing key not renewed", "err", err, "retryIn", wait)
			pause, wait = wait, min(2*wait, retryMax)
			changed = nil
		}
		timer := time.NewTimer(min(pause, time.Hour)) // clocks are corrected
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// issuerDenied says whether the issuing key in use is on the deny list.
func (c *core) issuerDenied(now *inForce) error {
	current := c.issuer.Intermediate()
	if current == nil {
		return nil
	}
	return now.denyList().Denies(policy.Holder{Key: policy.DigestOf(current.Certificate().RawSubjectPublicKeyInfo)}).Err()
}

func (c *core) newIntermediate(ctx context.Context) error {
	next, err := c.root.NewIntermediate(c.s.cfg.Name, c.clock.Now())
	if err != nil {
		return err
	}
	cert := next.Certificate()
	transcript := api.IntermediateTranscript(cert.RawSubjectPublicKeyInfo)
	ev, err := c.s.cfg.Attester.Attest(ctx, transcript.ReportData())
	if err != nil {
		return fmt.Errorf("attesting the issuing key: %w", err)
	}
	doc, err := api.NewEvidenceDocument(ev, transcript)
	if err != nil {
		return err
	}
	hash := ev.Hash()
	files, err := c.evidence.files(hash, doc, cert.NotAfter)
	if err != nil {
		return err
	}
	digest := policy.DigestOf(cert.Raw)
	receipt, err := c.ledger.Do(ctx, func(d *ledger.Draft) error {
		d.Put(files...)
		d.Put(store.Item{Key: certificateKey(digest), Data: cert.Raw})
		_, err := d.Append(translog.Entry{
			Type: translog.TypeIntermediate, Time: d.Now, Certificate: digest, Issuer: policy.DigestOf(c.issuer.Root().Raw),
			Evidence: policy.DigestFrom(hash), NotAfter: cert.NotAfter,
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := c.issuer.Use(next); err != nil {
		return err
	}
	c.s.cfg.Log.Info("issuing key in use", "certificate", digest, "notAfter", cert.NotAfter, "log", receipt.Index)
	return nil
}

// publishGiven offers the manifest this replica was started with: it may be
// newer than the one in force. A store that is away delays it.
func (c *core) publishGiven(ctx context.Context) error {
	given := c.s.cfg.Manifest
	for given.Manifest.Version > c.policies.current().manifest.Manifest.Version {
		_, err := c.policies.publishManifest(ctx, given.Envelope)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		c.s.cfg.Log.Warn("the manifest given at start is not put in force", "code", codeOf(err), "err", err)
		if code := codeOf(err); code != codeStoreUnavailable && code != codePolicyChanging {
			return nil
		}
		if err := pauseFor(ctx, retryMax); err != nil {
			return err
		}
	}
	return nil
}

// certificateKey is where issuing certificates are kept for auditors.
func certificateKey(d policy.Digest) string { return "certificate/" + string(d) }

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// isGone reports whether err says that something is not in the store.
func isGone(err error) bool { return errors.Is(err, store.ErrNotFound) }
