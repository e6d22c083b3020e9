// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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

func TestSlowCallerIsCutOff(t *testing.T) {
	const limit = 100 * time.Millisecond
	for _, h2 := range []bool{true, false} {
		ended := make(chan error, 1)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			limitCall(w, r, limit)
			_, err := io.ReadAll(r.Body)
			ended <- err
		}))
		srv.EnableHTTP2 = h2
		srv.StartTLS()
		body, hold := io.Pipe()
		go func() {
			resp, err := srv.Client().Post(srv.URL, "application/proto", body)
			if err == nil {
				resp.Body.Close()
			}
		}()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("HTTP/2 %v: a body that never came was read", h2)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("HTTP/2 %v: the call still waits for its body", h2)
		}
		hold.Close()
		srv.Close()
	}
}
