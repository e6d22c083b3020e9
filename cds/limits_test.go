// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
)

func TestOneHostCannotTakeEveryChallenge(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c := newChallenges(func() time.Time { return now })
	var session [sha256.Size]byte
	var last [32]byte
	for range maxPerHost {
		nonce, _, err := c.issue(session, "greedy")
		if err != nil {
			t.Fatal(err)
		}
		last = nonce
	}
	if _, _, err := c.issue(session, "greedy"); codeOf(err) != codeTooManyChallenges {
		t.Errorf("one more for the same host: %v, want %s", err, codeTooManyChallenges)
	}
	if _, _, err := c.issue(session, "honest"); err != nil {
		t.Errorf("another host: %v", err)
	}
	if err := c.use(last[:], session); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.issue(session, "greedy"); err != nil {
		t.Errorf("after one was used: %v", err)
	}
	now = now.Add(challengeTTL)
	if n := c.outstanding(); n != 0 {
		t.Errorf("%d outstanding after all expired", n)
	}
	if _, _, err := c.issue(session, "greedy"); err != nil {
		t.Errorf("after the others expired: %v", err)
	}
	if len(c.out) != 1 || len(c.hosts) != 1 || c.hosts["greedy"] != 1 {
		t.Errorf("%d nonces of hosts %v are kept, want the last alone", len(c.out), c.hosts)
	}
}

func TestChallengesAreBoundedOverAllHosts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c := newChallenges(func() time.Time { return now })
	for i := range maxChallenges {
		if _, _, err := c.issue([sha256.Size]byte{}, string(rune('a'+i/maxPerHost))); err != nil {
			t.Fatalf("challenge %d: %v", i, err)
		}
	}
	if _, _, err := c.issue([sha256.Size]byte{}, "another"); codeOf(err) != codeTooManyChallenges {
		t.Errorf("got %v, want %s", err, codeTooManyChallenges)
	}
}

func TestCallsOfOneHostAreLimitedAndOthersAreNot(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c := newCallers(Limits{CallBurst: 20, CallsPerSecond: 5})
	c.now = func() time.Time { return now }
	use := func(n int) {
		t.Helper()
		for i := range n {
			if err := c.allow("busy"); err != nil {
				t.Fatalf("call %d of %d is refused: %v", i, n, err)
			}
		}
		err := c.allow("busy")
		var r *refusal
		if !errors.As(err, &r) || r.code != codeTooFast || r.retryAfter < retryAtLeast {
			t.Errorf("one call more: %v, want %s and when to try again", err, codeTooFast)
		}
	}
	use(20)
	if err := c.allow("quiet"); err != nil {
		t.Errorf("another host is refused: %v", err)
	}
	now = now.Add(time.Second)
	use(5)
}

// refusals counts what the service refused, whatever the code.
func refusals(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "c8s_cds_refused_total" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// A caller chooses its own deadline. Were a refusal passed on as it is once
// that has run out, it would give the caller the reasons, and leave no trace.
func TestRefusalIsConcealedAndCountedWhenTheCallersDeadlineRanOut(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, &Server{})
	g := guard{&Server{metrics: m, cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"in time": t.Context(), "too late": gone} {
		log.Reset()
		before := refusals(t, reg)
		err := g.conceal(ctx, "/call", refuse(codeStatementForged, "a detail"))
		var out *connect.Error
		if !errors.As(err, &out) || out.Message() != codeStatementForged {
			t.Errorf("%s: the caller gets %v, want %s alone", name, err, codeStatementForged)
		}
		if !strings.Contains(log.String(), "a detail") {
			t.Errorf("%s: the log does not say why", name)
		}
		if refusals(t, reg) != before+1 {
			t.Errorf("%s: not counted", name)
		}
	}
	if err := g.conceal(gone, "/call", errors.New("a detail")); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "detail") {
		t.Errorf("another error for a caller that is gone: %v, want that it is gone alone", err)
	}
}

// Addresses cost nothing: what is remembered of them is bounded, and of IPv6
// the network counts.
func TestHostsThatAreCountedAreBounded(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c := newCallers(Limits{CallBurst: 20, CallsPerSecond: 5})
	c.now = func() time.Time { return now }
	for i := range 2 * maxCallers {
		if err := c.allow(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.all) > maxCallers {
		t.Errorf("%d hosts are remembered, at most %d may be", len(c.all), maxCallers)
	}
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2::1]:81": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64", "nonsense": "nonsense",
	} {
		if got := hostOf(remote); got != want {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
}

func TestQuotaLeavesSomethingForOthers(t *testing.T) {
	q := newQuota("things", 3, 2)
	var held []func()
	take := func(host string, ok bool) {
		t.Helper()
		release, err := q.take(host)
		if (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
		if err == nil {
			held = append(held, release)
		} else if codeOf(err) != codeBusy {
			t.Errorf("refused with %s, want %s", codeOf(err), codeBusy)
		}
	}
	take("a", true)
	take("a", true)
	take("a", false)
	take("b", true)
	take("c", false)
	held[0]()
	held[0]() // once more changes nothing
	take("c", true)
	take("b", false)
	for _, release := range held {
		release()
	}
	if q.held != 0 || len(q.hosts) != 0 {
		t.Errorf("%d are held by %v after all were given back", q.held, q.hosts)
	}
}
