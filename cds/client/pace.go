// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"time"
)

const (
	// RetryMin and RetryMax are how soon what failed is tried again: first, and
	// after many failures in a row.
	RetryMin = 200 * time.Millisecond
	RetryMax = 30 * time.Second
	// retryAskedMax bounds how long the CDS can send somebody away.
	retryAskedMax = 5 * time.Minute

	// A certificate is renewed somewhere between these parts of its life, in
	// percent: at half of it on average. The window is as wide as outages of
	// the CDS allow, because it is what spreads certificates that were issued
	// together.
	renewFrom, renewTo = 30, 70
	// When the CDS names a moment, it is kept up to the last of these, and
	// given the spread.
	renewLast, renewSpread = 80, 5

	// renewMin keeps a life that is nearly over, because an issuer's is, from
	// being renewed in ever smaller parts.
	renewMin = time.Second
)

// Pace decides when whoever the CDS certifies renews and tries again, so that
// those who got their certificates together, or lost the CDS together, do not
// come back together.
type Pace struct {
	Rand func(n int64) int64 // uniform in [0, n); safe for concurrent use
}

func (p Pace) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(p.Rand(int64(to-from)+1))
}

// Renewal is when to renew a certificate that was asked for now. hint is the
// CDS's wish; one that is not in the future is none.
func (p Pace) Renewal(now, notAfter, hint time.Time) time.Time {
	percent := notAfter.Sub(now) / 100
	from, to := renewFrom*percent, renewTo*percent
	if hint.After(now) {
		from = min(hint.Sub(now), renewLast*percent)
		to = from + renewSpread*percent
	}
	return now.Add(max(p.between(from, to), renewMin))
}

// Retry is how long to wait after the fails-th failure in a row: twice as long
// as after the last, between half and all of it.
func (p Pace) Retry(fails int, err error) time.Duration {
	wait := min(RetryMax, RetryMin<<min(fails-1, 10))
	return max(p.between(wait/2, wait), p.asked(err))
}

// RetryRenewal is how long to wait after a failed renewal of a certificate
// with so much life left. Nothing is lost yet, so the attempts of all who wait
// for the CDS are spread over minutes, and come closer as the end does.
func (p Pace) RetryRenewal(left time.Duration, err error) time.Duration {
	return min(left, max(p.between(left/16, left*2/3), p.asked(err), RetryMin))
}

// asked is how long the CDS asked to be left alone, and up to half as long
// again: everybody was told the same.
func (p Pace) asked(err error) time.Duration {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return 0
	}
	wait := min(max(refused.RetryAfter, 0), retryAskedMax)
	return p.between(wait, wait+wait/2)
}
