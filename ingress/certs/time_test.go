// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// liarWorld has one name with a certificate of a CA that does as it is told.
func liarWorld(t *testing.T) (*world, *liar, *Store) {
	t.Helper()
	l := newLiar(t)
	w := newWorld(t, "bank.example")
	w.cfg.ACME = l.acme()
	s := w.open()
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.State != StateValid {
		t.Fatalf("%+v", st)
	}
	return w, l, s
}

func TestCAThatIsDownLeavesTheOldCertificateEvenExpired(t *testing.T) {
	t.Parallel()
	w, l, s := liarWorld(t)
	served := stateOf(t, s, "bank.example")
	l.on("directory", refuse(http.StatusBadGateway, "x", ""))
	w.clock.move(80 * 24 * time.Hour)
	s.step(t.Context())
	wantProblem(t, s, "bank.example", CodeUnreachable)
	orders := l.counted("newOrder")
	w.clock.move(11 * 24 * time.Hour)
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.State != StateExpired || st.Serial != served.Serial || !strings.Contains(st.String(), "expired") {
		t.Errorf("%v", st)
	}
	if chain, err := w.handshake("bank.example"); err != nil || serial(chain[0]) != served.Serial {
		t.Errorf("a client sees %v", err)
	}
	s.step(t.Context())
	if n := strings.Count(string(w.log.bytes()), "has expired and is served still"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if l.counted("newOrder") != orders {
		t.Error("orders while nobody answers")
	}
	s = w.open() // and after a restart
	if st := stateOf(t, s, "bank.example"); st.State != StateExpired {
		t.Errorf("%v", st)
	}
	wantProblem(t, s, "bank.example", CodeUnreachable)
}

func TestBackoffGrowsAndSurvivesRestarts(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.on("newOrder", refuse(http.StatusForbidden, "caa", ""))
	w := newWorld(t, "bank.example")
	w.cfg.ACME = l.acme()
	var last time.Duration
	for i := range 12 {
		s := w.open() // starts over and over
		s.step(t.Context())
		s = w.open()
		s.step(t.Context())
		if n := l.counted("newOrder"); n != i+1 {
			t.Fatalf("%d orders after %d waits", n, i)
		}
		wait := stateOf(t, s, "bank.example").NextTry.Sub(w.clock.now())
		if wait < last*3/4 || wait > maxBackoff*5/4 {
			t.Errorf("wait %d is %v after %v", i, wait, last)
		}
		last = wait
		w.clock.move(wait + time.Second)
	}
	if last < maxBackoff-time.Minute {
		t.Errorf("the last wait is %v", last)
	}
	l.on("newOrder", nil)
	s := w.open()
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")
}

func TestCAIsAskedAgainWhenItSaysAndNotBefore(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	w := newWorld(t, "bank.example")
	w.cfg.ACME = l.acme()
	l.on("newOrder", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Retry-After", w.clock.now().Add(30*time.Hour).UTC().Format(http.TimeFormat))
		problem(rw, http.StatusTooManyRequests, "rateLimited", "too many")
	})
	s := w.open()
	s.step(t.Context())
	wantProblem(t, s, "bank.example", CodeRateLimit)
	w.clock.move(29 * time.Hour)
	s = w.open()
	s.step(t.Context())
	if n := l.counted("newOrder"); n != 1 {
		t.Errorf("%d orders", n)
	}
	l.on("newOrder", nil)
	w.clock.move(2 * time.Hour)
	s.step(t.Context())
	wantProblem(t, s, "bank.example", "")
}

func TestRateLimitOfTheAccountSparesTheOtherNames(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	var names []string
	for i := range 20 {
		names = append(names, "n"+itoa(i)+".example")
	}
	w := newWorld(t, names...)
	w.cfg.ACME = l.acme()
	l.on("newOrder", refuse(http.StatusTooManyRequests, "rateLimited", "60"))
	s := w.open()
	s.step(t.Context())
	n := l.counted("newOrder")
	if n > sharedLimit+atOnce {
		t.Errorf("%d orders", n)
	}
	w.clock.move(50 * time.Minute)
	s.step(t.Context())
	if l.counted("newOrder") != n {
		t.Error("asked again within the hour")
	}
	l.on("newOrder", nil)
	w.clock.move(30 * time.Minute)
	s.step(t.Context())
	for _, st := range s.Status() {
		if st.State != StateValid {
			t.Errorf("%v", st)
		}
	}
}

func TestBudgetEndsWhatFailsOverAndOver(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.foreign = true
	w := newWorld(t, "bank.example")
	w.cfg.ACME = l.acme()
	s := w.open()
	for range 10 {
		s.step(t.Context())
		w.clock.move(5 * time.Hour)
	}
	r := wantProblem(t, s, "bank.example", CodeBudget)
	if n := l.counted("finalize"); n != defaultIssued || !strings.Contains(r.Actual, CodeForeignKey) {
		t.Errorf("%d certificates; %v", n, r)
	}
	if at := stateOf(t, s, "bank.example").NextTry; at.Before(w.clock.now()) {
		t.Errorf("next try %v", at)
	}
	w.clock.move(week)
	s.step(t.Context())
	if n := l.counted("finalize"); n != defaultIssued+1 {
		t.Errorf("%d certificates after a week", n)
	}
}

func TestClockThatWasSetBackHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w, l, s := liarWorld(t)
	served := stateOf(t, s, "bank.example")
	w.clock.move(365 * 24 * time.Hour) // everything has expired, and what the CA issues too
	s.step(t.Context())
	wantProblem(t, s, "bank.example", CodeDates)
	if st := stateOf(t, s, "bank.example"); st.State != StateExpired || st.Serial != served.Serial {
		t.Errorf("ahead: %v", st)
	}
	w.clock.move(-365 * 24 * time.Hour)
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.State != StateValid || st.Serial != served.Serial {
		t.Errorf("back: %v", st)
	}
	w.clock.move(-365 * 24 * time.Hour)
	s = w.open()
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.State != StateNotYetValid || st.NextTry.Sub(w.clock.now()) > 2*maxBackoff {
		t.Errorf("behind: %v, next %v", st, st.NextTry)
	}
	if chain, err := w.handshake("bank.example"); err != nil || serial(chain[0]) != served.Serial {
		t.Errorf("a client sees %v", err)
	}
	w.clock.move((365 + 61) * 24 * time.Hour)
	orders := l.counted("newOrder")
	s.step(t.Context())
	if l.counted("newOrder") != orders+1 || stateOf(t, s, "bank.example").Serial == served.Serial {
		t.Errorf("not renewed when due: %v", s.Status())
	}
}

func TestKeyOutlivesAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	w, _, s := liarWorld(t)
	s.cfg.KeyPeriod = 30 * 24 * time.Hour
	key := s.state.keys[0].id
	w.clock.move(-300 * 24 * time.Hour)
	s.step(t.Context())
	w.clock.move(29 * 24 * time.Hour)
	s.step(t.Context())
	if s.state.keys[0].id != key {
		t.Error("rotated early")
	}
	w.clock.move(2 * 24 * time.Hour)
	s.step(t.Context())
	if s.state.keys[0].id == key {
		t.Error("not rotated")
	}
}

func TestOtherDirectoryReplacesCertificates(t *testing.T) {
	t.Parallel()
	w, _, s := liarWorld(t)
	staging := stateOf(t, s, "bank.example")
	production := newLiar(t)
	w.cfg.ACME = production.acme()
	s = w.open()
	if st := stateOf(t, s, "bank.example"); st.Serial != staging.Serial || st.Source == s.source {
		t.Errorf("until then: %v", st)
	}
	s.step(t.Context())
	if st := stateOf(t, s, "bank.example"); st.Source != s.source || production.counted("newOrder") != 1 {
		t.Errorf("%v", st)
	}
	if len(s.state.accounts) != 2 {
		t.Errorf("%d accounts", len(s.state.accounts))
	}
}

func TestShortLivesAreRenewedWithinTheBudget(t *testing.T) {
	t.Parallel()
	w, l, s := liarWorld(t)
	w.clock.move(61 * 24 * time.Hour)
	l.mu.Lock()
	l.template = shortLived(w, 24*time.Hour)
	l.mu.Unlock()
	for range 7 * 24 {
		s.step(t.Context())
		if st := stateOf(t, s, "bank.example"); st.State != StateValid || st.Problem != nil {
			t.Fatalf("%v", st)
		}
		w.clock.move(time.Hour)
	}
	if n := l.counted("finalize"); n < 9 || n > 14 {
		t.Errorf("%d certificates in a week", n)
	}
}
