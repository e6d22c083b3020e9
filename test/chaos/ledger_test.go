// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What applications try.
const (
	newConnection = "new connection"
	standingConn  = "standing connection"
	newFlow       = "new flow"
	standingFlows = "standing flow"
)

// attempt is one thing that an application tried.
type attempt struct {
	what, pair   string
	began, ended time.Time
	err          error
}

// breakage is a time in which something was broken.
type breakage struct {
	name          string
	began, healed time.Time // healed is zero while it lasts
	harmless      bool      // new connections must not fail meanwhile
}

// ledger holds what was tried and what was broken, and says what does not fit.
type ledger struct {
	mu       sync.Mutex
	tried    map[string]int
	failures []attempt
	broken   []*breakage
}

func (l *ledger) add(a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried == nil {
		l.tried = map[string]int{}
	}
	l.tried[a.what]++
	if a.err != nil {
		l.failures = append(l.failures, a)
	}
}

// begin notes that something breaks from now on.
func (l *ledger) begin(name string, harmless bool) *breakage {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &breakage{name: name, began: time.Now(), harmless: harmless}
	l.broken = append(l.broken, b)
	return b
}

// end notes that b is over.
func (l *ledger) end(b *breakage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.healed = time.Now()
}

// explained reports whether something was broken while a was tried. Callers
// hold mu.
func (l *ledger) explained(a attempt) bool {
	if errors.Is(a.err, errChanged) {
		return false
	}
	return slices.ContainsFunc(l.broken, func(b *breakage) bool {
		overlaps := a.ended.After(b.began) && (b.healed.IsZero() || a.began.Before(b.healed))
		return overlaps && !(b.harmless && (a.what == newConnection || a.what == newFlow))
	})
}

// check fails the test for whatever failed without a reason.
func (l *ledger) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range []string{newConnection, standingConn, newFlow, standingFlows} {
		if l.tried[what] == 0 {
			t.Errorf("no %s was tried", what)
		}
	}
	n := 0
	for _, a := range l.failures {
		if l.explained(a) {
			continue
		}
		if n++; n <= 10 {
			t.Errorf("unexplained, %s to %s: %s %s: %v", a.began.Format("15:04:05.000"), a.ended.Format("15:04:05.000"), a.what, a.pair, a.err)
		}
	}
	if n > 0 {
		t.Errorf("%d failures that nothing explains", n)
		for _, b := range l.broken {
			t.Logf("%s to %s: %s", b.began.Format("15:04:05.000"), b.healed.Format("15:04:05.000"), b.name)
		}
	}
}

// report says what was broken how often, and what it cost.
func (l *ledger) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	type row struct {
		times   int
		took    []time.Duration
		failed  int
		newOnes int
	}
	rows := map[string]*row{}
	for _, b := range l.broken {
		r := rows[b.name]
		if r == nil {
			r = &row{}
			rows[b.name] = r
		}
		r.times++
		r.took = append(r.took, b.healed.Sub(b.began))
		for _, a := range l.failures {
			if a.ended.After(b.began) && a.began.Before(b.healed) {
				r.failed++
				if a.what == newConnection || a.what == newFlow {
					r.newOnes++
				}
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%-28s %5s  %-18s %s\n", "broken", "times", "until all worked", "failed meanwhile (new connections and flows)")
	for _, name := range sortedKeys(rows) {
		r := rows[name]
		slices.Sort(r.took)
		fmt.Fprintf(&out, "%-28s %5d  %6s (max %6s)  %d (%d)\n", name, r.times,
			r.took[len(r.took)/2].Round(10*time.Millisecond), r.took[len(r.took)-1].Round(10*time.Millisecond), r.failed, r.newOnes)
	}
	for _, what := range sortedKeys(l.tried) {
		failed := 0
		for _, a := range l.failures {
			if a.what == what {
				failed++
			}
		}
		fmt.Fprintf(&out, "%s: %d tried, %d failed\n", what, l.tried[what], failed)
	}
	return out.String()
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestLedgerTellsWhatNothingExplains(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	broke := errors.New("reset")
	l := &ledger{broken: []*breakage{
		{name: "kill", began: at(10), healed: at(20)},
		{name: "upgrade", began: at(30), healed: at(40), harmless: true},
		{name: "for ever", began: at(100)},
	}}
	for name, tt := range map[string]struct {
		a    attempt
		want bool
	}{
		"before":                      {attempt{newConnection, "", at(1), at(2), broke}, false},
		"began before":                {attempt{newConnection, "", at(9), at(11), broke}, true},
		"meanwhile":                   {attempt{newConnection, "", at(11), at(12), broke}, true},
		"ended after":                 {attempt{newConnection, "", at(19), at(25), broke}, true},
		"after":                       {attempt{newConnection, "", at(21), at(25), broke}, false},
		"changed bytes":               {attempt{newConnection, "", at(11), at(12), fmt.Errorf("reading: %w", errChanged)}, false},
		"new in an upgrade":           {attempt{newConnection, "", at(31), at(32), broke}, false},
		"standing in an upgrade":      {attempt{standingConn, "", at(31), at(32), broke}, true},
		"while something goes on":     {attempt{newConnection, "", at(101), at(102), broke}, true},
		"between, across two of them": {attempt{newConnection, "", at(22), at(28), broke}, false},
	} {
		if got := l.explained(tt.a); got != tt.want {
			t.Errorf("%s: explained %t, want %t", name, got, tt.want)
		}
	}
}
