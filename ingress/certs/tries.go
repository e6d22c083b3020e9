// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	week = 7 * 24 * time.Hour
	// Let's Encrypt allows five failed validations an hour and name. The first
	// five tries with these take an hour, and later ones are six a day.
	firstBackoff = 2 * time.Minute
	maxBackoff   = 4 * time.Hour
)

// tries is what was asked of the CA for one unit. It is kept, so that a process
// that starts over and over does not ask over and over.
type tries struct {
	Failures int         `json:"failures,omitempty"` // in a row
	Noted    time.Time   `json:"noted,omitzero"`     // when Next was set
	Next     time.Time   `json:"next,omitzero"`      // not before
	Orders   []time.Time `json:"orders,omitempty"`   // in the last seven days
	Issued   []time.Time `json:"issued,omitempty"`   // of these, for which a certificate was asked
	Problem  *Refusal    `json:"problem,omitempty"`
}

// tidy forgets what is older than a week. Moments after now come from a clock
// that was set back since: they count as now.
func (t *tries) tidy(now time.Time) {
	t.Orders, t.Issued = lately(t.Orders, now), lately(t.Issued, now)
	if t.Noted.After(now) {
		t.Next = now.Add(t.Next.Sub(t.Noted))
		t.Noted = now
	}
}

func lately(all []time.Time, now time.Time) (kept []time.Time) {
	for _, at := range all {
		if at.After(now) {
			at = now
		}
		if now.Sub(at) < week {
			kept = append(kept, at)
		}
	}
	return kept
}

func (t *tries) idle(now time.Time) bool {
	t.tidy(now)
	return len(t.Orders) == 0 && !t.Next.After(now)
}

// wait puts the next try off by at least what the CA asked for, at most a week.
func (t *tries) wait(now time.Time, unit string, asked time.Duration) {
	t.Noted, t.Next = now, now.Add(max(backoff(unit, t.Failures), min(asked, week)))
}

// backoff doubles with each failure. Up to a quarter more differs by name, so
// that names that failed together do not come back together.
func backoff(unit string, failures int) time.Duration {
	d := firstBackoff << min(max(failures-1, 0), 10)
	d = min(d, maxBackoff)
	return d + time.Duration(fraction([]byte(fmt.Sprint(unit, failures)))*float64(d)/4)
}

// fraction is a number from 0 to 1 that only depends on seed.
func fraction(seed []byte) float64 {
	h := sha256.Sum256(seed)
	return float64(binary.BigEndian.Uint32(h[:])) / (1 << 32)
}

// renewal is when a certificate is due for renewal: two thirds into its life,
// less up to a twentieth of it, so that certificates that were made together
// are not renewed together.
func renewal(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 - time.Duration(fraction(leaf.Raw)*float64(life)/20))
}

// budget refuses what would ask too much of the CA for one name. Renewals alone
// never do: a certificate's life makes the budget larger where need be.
func (t *tries) budget(now time.Time, a *ACME, leaf *x509.Certificate) *Refusal {
	t.tidy(now)
	orders, issued := a.OrdersPerWeek, a.CertificatesPerWeek
	if leaf != nil {
		if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 0 {
			renewals := int(2*week/max(life/2, time.Minute)) + 1
			orders, issued = max(orders, renewals), max(issued, renewals)
		}
	}
	refuse := func(what string, had, most int) *Refusal {
		last := ""
		if t.Problem != nil && t.Problem.Code != CodeBudget {
			last = "; the last problem was " + t.Problem.Error()
		}
		return &Refusal{
			Code: CodeBudget, Rule: what + " for one name in seven days", Expected: fmt.Sprintf("at most %d", most),
			Actual: fmt.Sprintf("%d%s", had, last), Remedy: "the CA would refuse, too, before long: mend the cause; the next try comes by itself",
		}
	}
	switch {
	case len(t.Orders) >= orders:
		t.Noted, t.Next = now, t.Orders[0].Add(week)
		return refuse("orders", len(t.Orders), orders)
	case len(t.Issued) >= issued:
		t.Noted, t.Next = now, t.Issued[0].Add(week)
		return refuse("certificates", len(t.Issued), issued)
	}
	return nil
}
