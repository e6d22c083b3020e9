// SPDX-License-Identifier: Apache-2.0

// Package identity keeps an ingress a member of the mesh, and keeps this
// invariant: a credential is offered only while its certificate is valid and no
// deny list names it; and whatever connections are judged by, the manifest, the
// deny list, the roots, the credential or the clock, changes for everybody at
// once, with Changed called after it.
package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

// CDS is what certifies machines and passes on the operators' word; a
// *client.Client.
type CDS interface {
	EnrolIngress(ctx context.Context, att attest.Attester) (*client.Credential, error)
	Watch(ctx context.Context, fn func(client.News)) error
	Manifest() *policy.Signed
	DenyList() *policy.SignedDenyList
}

// Config is what an Identity is made of. All of it is required.
type Config struct {
	CDS      CDS
	Attester attest.Attester
	Changed  func() // judge connections again; must not block
	Rand     func(n int64) int64
	Now      func() time.Time
	Log      *slog.Logger
}

// Identity is the ingress's credential and the operators' word that it obeys.
// Safe for concurrent use.
type Identity struct {
	cfg     Config
	pace    client.Pace
	current atomic.Pointer[enrolled]
	roots   *client.Roots
	kick    chan struct{}
	suspect atomic.Bool // the certificate is to be replaced

	mu  sync.Mutex
	why error // the last enrolment failed
}

// enrolled is a credential as its several users want it.
type enrolled struct {
	client *client.Credential
	mesh   *datapath.Credential
}

var _ datapath.Word = (*Identity)(nil)

// New prepares an identity. Nothing is asked until Run.
func New(cfg Config) (*Identity, error) {
	if cfg.CDS == nil || cfg.Attester == nil || cfg.Changed == nil || cfg.Rand == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the ingress's identity: the configuration lacks a part")
	}
	i := &Identity{cfg: cfg, pace: client.Pace{Rand: cfg.Rand}, roots: client.NewRoots(), kick: make(chan struct{}, 1)}
	return i, nil
}

// Run keeps the machine certified and follows the operators' word until ctx
// ends.
func (i *Identity) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return i.keepEnrolled(ctx) })
	g.Go(func() error { return i.cfg.CDS.Watch(ctx, i.news) })
	g.Go(func() error { return i.passTime(ctx) })
	return g.Wait()
}

// Manifest returns the manifest in force.
func (i *Identity) Manifest() *policy.Signed { return i.cfg.CDS.Manifest() }

// DenyList returns the deny list in force; nil, which denies nobody, where
// there never was one.
func (i *Identity) DenyList() *policy.DenyList {
	if signed := i.cfg.CDS.DenyList(); signed != nil {
		return signed.List
	}
	return nil
}

// Roots returns the mesh CA certificates that peers must chain to.
func (i *Identity) Roots() *x509.CertPool { return i.roots.Pool() }

// Credential returns the credential for connections into the mesh, nil while
// there is none that may be used.
func (i *Identity) Credential() *datapath.Credential {
	if e := i.usable(); e != nil {
		return e.mesh
	}
	return nil
}

// Enrolled returns the same as the CDS gave it.
func (i *Identity) Enrolled() *client.Credential {
	if e := i.usable(); e != nil {
		return e.client
	}
	return nil
}

func (i *Identity) usable() *enrolled {
	e := i.current.Load()
	if e == nil || !i.cfg.Now().Before(e.mesh.NotAfter) || !i.DenyList().Denies(e.mesh.Holder).Allowed {
		return nil
	}
	return e
}

// Suspect has the machine enrol again, because the CDS that answers now did not
// issue its certificate: it was made anew. It does not block.
func (i *Identity) Suspect() {
	i.suspect.Store(true)
	i.wake()
}

// Ready says why there is no credential to use, or nil.
func (i *Identity) Ready() error {
	if i.usable() != nil {
		return nil
	}
	if e := i.current.Load(); e != nil {
		if d := i.DenyList().Denies(e.mesh.Holder); !d.Allowed {
			return fmt.Errorf("the operators deny this ingress: %s", d.Code)
		}
	}
	if err := i.Err(); err != nil {
		return fmt.Errorf("the CDS has not certified this ingress: %w", err)
	}
	return errors.New("the CDS has not certified this ingress yet")
}

// Err says why the last enrolment failed, or nil.
func (i *Identity) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.why
}

func (i *Identity) setErr(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.why = err
}

// news has connections judged by what holds now, and wakes an ingress whose
// enrolment waits for another word.
func (i *Identity) news(n client.News) {
	if n.DenyList != nil {
		i.cfg.Log.Info("deny list in force", "version", n.DenyList.List.Version, "digest", n.DenyList.Digest, "entries", len(n.DenyList.List.Entries))
	}
	if n.Manifest != nil {
		i.cfg.Log.Info("manifest in force", "version", n.Manifest.Manifest.Version, "digest", n.Manifest.Digest)
	}
	i.cfg.Changed()
	i.wake()
}

func (i *Identity) wake() {
	select {
	case i.kick <- struct{}{}:
	default: // it looks again anyhow
	}
}

// lookAtClock is how often what only the clock changes is looked for.
const lookAtClock = time.Second

// passTime has connections judged again when a value of the manifest expires,
// when the clock is set back, and when a retired root's last leaf is over.
func (i *Identity) passTime(ctx context.Context) error {
	tick := time.NewTicker(lookAtClock)
	defer tick.Stop()
	last := i.cfg.Now().Round(0) // the manifest speaks of wall clocks
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := i.cfg.Now().Round(0)
		change, any := i.Manifest().Manifest.NextChange(last)
		expired := i.roots.Expire(now)
		if expired || any && !change.After(now) || now.Before(last) {
			i.cfg.Changed()
		}
		last = now
	}
}
