// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	// retryAskedMax bounds how long the CDS can send somebody away.
	retryAskedMax = 5 * time.Minute

	// A certificate is renewed between these parts of its life, in percent, or
	// from the moment that the CDS names on, up to the last of them.
	renewFrom, renewTo     = 30, 70
	renewLast, renewSpread = 80, 5
	// minLife is the least time between two enrolments.
	minLife = 2 * time.Second
)

// keepEnrolled obtains a credential and renews it; each renewal is attested
// anew. A machine that the operators deny does not ask: it waits for the word
// that lifts the denial.
func (i *Identity) keepEnrolled(ctx context.Context) error {
	for fails := 0; ctx.Err() == nil; {
		if d := i.machineDenied(); !d.Allowed {
			i.setErr(d.Err())
			i.sleep(ctx, time.Hour, i.kick)
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
		i.sleep(ctx, minLife, nil)
		for i.holds(cred) && ctx.Err() == nil {
			left := i.renewal(began, cred).Sub(i.cfg.Now())
			if left <= 0 {
				break
			}
			i.sleep(ctx, left, i.kick)
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

// failed waits for the next attempt. With a certificate that is valid still
// there is time, and none of the CDS's is wasted.
func (i *Identity) failed(ctx context.Context, fails int, err error) {
	wait := retryMax
	if fails < 8 {
		wait = retryMin << fails
	}
	wait = i.between(wait/2, wait)
	if e := i.usable(); e != nil {
		left := e.mesh.NotAfter.Sub(i.cfg.Now())
		wait = min(left, max(wait, i.between(left/16, left/3)))
	}
	kick := i.kick
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.RetryAfter > 0 { // it asked to be left alone, whatever comes
		asked := min(refused.RetryAfter, retryAskedMax)
		wait, kick = max(wait, i.between(asked, asked+asked/2)), nil
	}
	i.cfg.Log.Warn("ingress enrolment failed", "err", err, "retryIn", wait)
	i.setErr(err)
	i.sleep(ctx, wait, kick)
}

// renewal is when to renew a certificate that was asked for at began.
func (i *Identity) renewal(began time.Time, cred *client.Credential) time.Time {
	percent := cred.TLS.Leaf.NotAfter.Sub(began) / 100
	from, to := renewFrom*percent, renewTo*percent
	if cred.RenewAfter.After(began) {
		from = min(cred.RenewAfter.Sub(began), renewLast*percent)
		to = from + renewSpread*percent
	}
	return began.Add(i.between(from, to))
}

func (i *Identity) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(i.cfg.Rand(int64(to-from)+1))
}

// sleep waits for d, a kick or the end of ctx.
func (i *Identity) sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-timer.C:
	}
}
