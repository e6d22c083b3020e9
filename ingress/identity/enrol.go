// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/internal/pause"
	"github.com/c8s-dev/c8s/policy"
)

// minLife is the least time between two enrolments.
const minLife = 2 * time.Second

// keepEnrolled obtains a credential and renews it; each renewal is attested
// anew. A machine that the operators deny does not ask: it waits for the word
// that lifts the denial.
func (i *Identity) keepEnrolled(ctx context.Context) error {
	for fails := 0; ctx.Err() == nil; {
		if d := i.machineDenied(); !d.Allowed {
			i.setErr(d.Err())
			pause.For(ctx, time.Hour, i.kick)
			continue
		}
		began := i.cfg.Now()
		cred, err := i.cfg.CDS.EnrolIngress(ctx, i.cfg.Attester)
		if err != nil {
			fails++
			i.failed(ctx, fails, err)
			continue
		}
		fails = 0
		i.take(cred)
		pause.For(ctx, minLife, nil)
		renew := i.pace.Renewal(began, cred.TLS.Leaf.NotAfter, cred.RenewAfter)
		for i.holds(cred) && ctx.Err() == nil && i.cfg.Now().Before(renew) {
			pause.For(ctx, renew.Sub(i.cfg.Now()), i.kick)
		}
	}
	return ctx.Err()
}

// machineDenied asks about what no new certificate changes.
func (i *Identity) machineDenied() policy.Decision {
	var h policy.Holder
	if e := i.current.Load(); e != nil {
		h.Machine, h.Measurement = e.mesh.Holder.Machine, e.mesh.Holder.Measurement
	}
	return i.DenyList().Denies(h)
}

// holds reports whether the certificate itself is good still: a denied or
// suspected one is replaced at once.
func (i *Identity) holds(cred *client.Credential) bool {
	return !i.suspect.Load() && i.DenyList().Denies(cred.Peer.Holder()).Allowed
}

// take puts a credential in use: its roots first, so that nobody is met with a
// certificate whose root is not known yet.
func (i *Identity) take(cred *client.Credential) {
	i.roots.Set(cred.Roots, i.cfg.Now())
	i.suspect.Store(false)
	i.current.Store(&enrolled{cred, datapath.NewCredential(&cred.TLS, cred.Peer)})
	i.setErr(nil)
	i.cfg.Log.Info("ingress enrolled", "id", cred.Peer.ID.String(), "notAfter", cred.TLS.Leaf.NotAfter, "simulated", cred.Peer.Claims.Simulated)
	i.cfg.Changed()
}

// failed waits for the next attempt. With a certificate that is good still
// there is time, and none of the CDS's is wasted.
func (i *Identity) failed(ctx context.Context, fails int, err error) {
	wait := i.pace.Retry(fails, err)
	if e := i.usable(); e != nil {
		left := e.mesh.NotAfter.Sub(i.cfg.Now())
		if i.suspect.Load() {
			wait = min(left, wait)
		} else {
			wait = i.pace.RetryRenewal(left, err)
		}
	}
	kick := i.kick
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.RetryAfter > 0 { // it asked to be left alone, whatever comes
		kick = nil
	}
	i.cfg.Log.Warn("ingress enrolment failed", "err", err, "retryIn", wait)
	i.setErr(err)
	pause.For(ctx, wait, kick)
}
