// SPDX-License-Identifier: Apache-2.0

package client

import (
	"container/heap"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"
)

// seeded is a Pace whose choices are the same in every run.
func seeded() Pace {
	return Pace{Rand: mathrand.New(mathrand.NewPCG(1, 2)).Int64N}
}

func TestRenewalIsDueWithinItsWindow(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	in := now.Add
	for _, tt := range []struct {
		life        time.Duration
		hint        time.Time
		least, most time.Duration
	}{
		{time.Hour, time.Time{}, 18 * time.Minute, 42 * time.Minute},
		{10 * time.Second, time.Time{}, 3 * time.Second, 7 * time.Second},
		{time.Second, time.Time{}, renewMin, renewMin},
		{0, time.Time{}, renewMin, renewMin},
		{-time.Hour, time.Time{}, renewMin, renewMin},
		{time.Hour, in(30 * time.Minute), 30 * time.Minute, 33 * time.Minute},
		{time.Hour, in(time.Minute), time.Minute, 4 * time.Minute},
		{time.Hour, in(59 * time.Minute), 48 * time.Minute, 51 * time.Minute},  // too late to be safe
		{time.Hour, in(100 * time.Hour), 48 * time.Minute, 51 * time.Minute},   // absurd
		{time.Hour, in(0), 18 * time.Minute, 42 * time.Minute},                 // not in the future
		{time.Hour, time.Unix(0, 0).UTC(), 18 * time.Minute, 42 * time.Minute}, // how protobuf spells nothing
	} {
		p := seeded()
		distinct := map[time.Duration]bool{}
		for range 1000 {
			d := p.Renewal(now, in(tt.life), tt.hint).Sub(now)
			if d < tt.least || d > tt.most {
				t.Fatalf("a life of %s with hint %s is renewed after %s, want %s to %s", tt.life, tt.hint, d, tt.least, tt.most)
			}
			distinct[d] = true
		}
		if tt.least != tt.most && len(distinct) < 100 {
			t.Errorf("a life of %s is renewed at %d distinct times of 1000", tt.life, len(distinct))
		}
	}
}

func TestRetryDoublesToItsMostAndHasJitter(t *testing.T) {
	p := seeded()
	for fails := 1; fails < 100; fails++ {
		whole := RetryMax
		if fails < 9 {
			whole = min(RetryMax, RetryMin<<(fails-1))
		}
		for range 100 {
			if d := p.Retry(fails, errors.New("away")); d < whole/2 || d > whole {
				t.Fatalf("after %d failures: %s, want %s to %s", fails, d, whole/2, whole)
			}
		}
	}
}

func TestRenewalIsRetriedMoreOftenTowardsTheEnd(t *testing.T) {
	p, away := seeded(), errors.New("away")
	for _, tt := range []struct{ left, least, most time.Duration }{
		{15 * time.Minute, 56 * time.Second, 10 * time.Minute},
		{15 * time.Second, 937 * time.Millisecond, 10 * time.Second},
		{time.Second, RetryMin, 667 * time.Millisecond},
		{50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond}, // to be locked in time
	} {
		for range 100 {
			if d := p.RetryRenewal(tt.left, away); d < tt.least || d > tt.most {
				t.Errorf("with %s left: %s, want %s to %s", tt.left, d, tt.least, tt.most)
			}
		}
	}
}

func TestCDSMayAskToBeLeftAlone(t *testing.T) {
	for _, tt := range []struct{ asked, least, most time.Duration }{
		{-time.Hour, 0, RetryMin},
		{0, 0, RetryMin},
		{20 * time.Second, 20 * time.Second, 30 * time.Second},
		{100 * time.Hour, retryAskedMax, retryAskedMax + retryAskedMax/2},
	} {
		p, err := seeded(), fmt.Errorf("enrolling: %w", &RefusedError{Code: "too-fast", RetryAfter: tt.asked})
		distinct := map[time.Duration]bool{}
		for range 1000 {
			d := p.Retry(1, err)
			if d < tt.least || d > tt.most {
				t.Fatalf("asked for %s: %s, want %s to %s", tt.asked, d, tt.least, tt.most)
			}
			distinct[d] = true
		}
		if len(distinct) < 100 {
			t.Errorf("asked for %s: %d distinct waits of 1000", tt.asked, len(distinct))
		}
		if d := p.RetryRenewal(time.Hour, err); d < tt.least {
			t.Errorf("a renewal, asked for %s: %s", tt.asked, d)
		}
		if d := p.RetryRenewal(time.Second, err); d > time.Second {
			t.Errorf("a certificate that is over in a second is looked at after %s", d)
		}
	}
}

// leaf is one certificate of the simulation.
type leaf struct {
	next, notAfter time.Duration // since the start
	fails          int
}

type leaves []*leaf

func (l leaves) Len() int           { return len(l) }
func (l leaves) Less(i, j int) bool { return l[i].next < l[j].next }
func (l leaves) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *leaves) Push(x any)        { *l = append(*l, x.(*leaf)) }
func (l *leaves) Pop() any {
	old := *l
	last := old[len(old)-1]
	*l = old[:len(old)-1]
	return last
}

// simulate lets n leaves that were issued in the same second live for so long,
// while the CDS is away during each of the outages, and returns how many asked
// it in each second.
func simulate(t *testing.T, p Pace, n int, life, until time.Duration, outages ...[2]time.Duration) []int {
	t.Helper()
	epoch := time.Unix(1_800_000_000, 0)
	away := func(at time.Duration) bool {
		for _, o := range outages {
			if at >= o[0] && at < o[1] {
				return true
			}
		}
		return false
	}
	renewed := func(l *leaf, at time.Duration) {
		l.notAfter, l.fails = at+life, 0
		l.next = p.Renewal(epoch.Add(at), epoch.Add(l.notAfter), time.Time{}).Sub(epoch)
	}
	q := make(leaves, n)
	for i := range q {
		q[i] = &leaf{}
		renewed(q[i], time.Duration(i)*time.Second/time.Duration(n))
	}
	heap.Init(&q)
	asked := make([]int, until/time.Second)
	for at := q[0].next; at < until; at = q[0].next {
		l := q[0]
		asked[at/time.Second]++
		if at >= l.notAfter {
			t.Fatalf("a certificate ended at %s, before the CDS was reached", l.notAfter)
		}
		if away(at) {
			l.fails++
			l.next = at + p.RetryRenewal(l.notAfter-at, errors.New("away"))
		} else {
			renewed(l, at)
		}
		heap.Fix(&q, 0)
	}
	return asked
}

// peak is the largest number of requests within so many seconds.
func peak(asked []int, seconds int) int {
	most, sum := 0, 0
	for i, n := range asked {
		sum += n
		if i >= seconds {
			sum -= asked[i-seconds]
		}
		most = max(most, sum)
	}
	return most
}

// Ten thousand certificates are issued in one second. Chance alone makes
// single seconds differ from the mean, so bursts are bounded twice: within ten
// seconds to three times the mean rate, within one to five times.
func TestRenewalsDoNotStampede(t *testing.T) {
	const n, life, until = 10_000, time.Hour, 8 * time.Hour
	mean := float64(n) / (life.Seconds() * (renewFrom + renewTo) / 200)
	for _, tt := range []struct {
		name    string
		outages [][2]time.Duration
	}{
		{"the CDS is always there", nil},
		{"it is away for 10 minutes while the first come due", [][2]time.Duration{{18 * time.Minute, 28 * time.Minute}}},
		{"it is away for 10 minutes, late in the first life", [][2]time.Duration{{35 * time.Minute, 45 * time.Minute}}},
		{"it is away for 10 minutes, later", [][2]time.Duration{{3 * time.Hour, 3*time.Hour + 10*time.Minute}}},
		{"it comes and goes", [][2]time.Duration{{20 * time.Minute, 25 * time.Minute}, {27 * time.Minute, 32 * time.Minute}, {60 * time.Minute, 70 * time.Minute}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := simulate(t, seeded(), n, life, until, tt.outages...)
			one, ten := float64(peak(asked, 1)), float64(peak(asked, 10))/10
			t.Logf("mean %.1f/s, busiest second %.0f (%.1f times), busiest ten seconds %.1f/s (%.1f times)", mean, one, one/mean, ten, ten/mean)
			if one > 5*mean || ten > 3*mean {
				t.Errorf("renewals stampede: busiest second %.0f, busiest ten %.1f/s, mean %.1f/s", one, ten, mean)
			}
		})
	}
}
