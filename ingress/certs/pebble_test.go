// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
)

func TestIssuedByEachChallenge(t *testing.T) {
	t.Parallel()
	for _, way := range []string{TLSALPN01, HTTP01} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, "bank.example", "shop.example")
			ca := w.pebble(pebbletest.Options{BadNonces: 20})
			w.cfg.ACME.Challenges = []string{way}
			s := w.open()
			changed := s.Changed()
			s.step(t.Context())
			for _, name := range w.cfg.Names {
				leaf := w.wantValid(name, ca.pebble.Issuer)
				if got := sha256.Sum256(leaf.RawSubjectPublicKeyInfo); len(s.Keys()) != 1 || got != s.state.keys[0].id || len(leaf.DNSNames) != 1 {
					t.Errorf("%s: key %x, names %v", name, got, leaf.DNSNames)
				}
				wantProblem(t, s, name, "")
			}
			select {
			case <-changed:
			default:
				t.Error("nobody was told")
			}
			if n := ca.counted("newOrder"); n < 2 {
				t.Errorf("%d orders for two names", n)
			}
			s.step(t.Context())
			if stateOf(t, s, "bank.example").Orders != 1 || ca.counted("newAccount") < 1 {
				t.Errorf("%+v", s.Status())
			}
		})
	}
}

func TestOtherChallengeIsTriedWhenOneFails(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{TLSALPN01, HTTP01}, {HTTP01, TLSALPN01}} {
		w := newWorld(t, "bank.example")
		free := listener(t) // nobody answers there
		if order[0] == TLSALPN01 {
			ca := pebbletest.Start(t, pebbletest.Options{HTTPPort: w.httpPort, TLSPort: port(free)})
			w.cfg.ACME = &ACME{Directory: ca.Directory, Roots: ca.Roots, Challenges: order}
		} else {
			ca := pebbletest.Start(t, pebbletest.Options{HTTPPort: port(free), TLSPort: w.tlsPort})
			w.cfg.ACME = &ACME{Directory: ca.Directory, Roots: ca.Roots, Challenges: order}
		}
		free.Close()
		s := w.open()
		s.step(t.Context())
		if st := stateOf(t, s, "bank.example"); st.State != StateValid || st.Orders != 2 {
			t.Errorf("%v: %+v", order, st)
		}
		// With one way only, the problem says what to open.
		w.cfg.ACME.Challenges, w.cfg.Path = order[:1], w.cfg.Path+"2"
		s = w.open()
		s.step(t.Context())
		if r := wantProblem(t, s, "bank.example", CodeChallenge); !strings.Contains(r.Remedy, "443") {
			t.Errorf("%v", r)
		}
	}
}

func TestRestartNeedsNoOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bank.example")
	ca := w.pebble(pebbletest.Options{})
	s := w.open()
	s.step(t.Context())
	before, key := w.wantValid("bank.example", ca.pebble.Issuer), s.state.keys[0].id
	orders, accounts := ca.counted("newOrder"), ca.counted("newAccount")

	s = w.open()
	if got := w.wantValid("bank.example", ca.pebble.Issuer); !got.Equal(before) || s.state.keys[0].id != key {
		t.Error("another certificate or key after the restart")
	}
	s.step(t.Context())
	if ca.counted("newOrder") != orders {
		t.Error("a restart costs an order")
	}
	w.cfg.Names = []string{"bank.example", "new.example"}
	s = w.open()
	s.step(t.Context())
	w.wantValid("new.example", ca.pebble.Issuer)
	if ca.counted("newAccount") != accounts {
		t.Error("a restart costs an account")
	}
}

func TestRenewalComesInTimeAndOnlyThen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bank.example")
	ca := w.pebble(pebbletest.Options{Life: 90 * 24 * time.Hour, Reuse: 100})
	s := w.open()
	s.step(t.Context())
	first := w.wantValid("bank.example", ca.pebble.Issuer)
	w.clock.move(50 * 24 * time.Hour)
	s.step(t.Context())
	if got := w.wantValid("bank.example", ca.pebble.Issuer); !got.Equal(first) {
		t.Error("renewed before it is due")
	}
	w.clock.move(11 * 24 * time.Hour)
	s.step(t.Context())
	if got := w.wantValid("bank.example", ca.pebble.Issuer); got.Equal(first) {
		t.Errorf("not renewed: %v", s.Status())
	}
}

func TestRotationKeepsBothKeysUntilAllCertificatesAreNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example", "b.example")
	ca := w.pebble(pebbletest.Options{})
	w.cfg.KeyPeriod = 24 * time.Hour
	s := w.open()
	s.step(t.Context())
	old := s.state.keys[0].id
	w.clock.move(25 * time.Hour)
	w.deny("b.example", true)
	changed := s.Changed()
	s.step(t.Context())
	<-changed
	a, b := w.wantValid("a.example", ca.pebble.Issuer), w.wantValid("b.example", ca.pebble.Issuer)
	if keys := s.Keys(); len(keys) != 2 || s.state.keys[1].id != old {
		t.Fatalf("%d keys", len(keys))
	}
	if sha256.Sum256(a.RawSubjectPublicKeyInfo) != s.state.keys[0].id || sha256.Sum256(b.RawSubjectPublicKeyInfo) != old {
		t.Error("a has the old key, or b the new one")
	}
	wantProblem(t, s, "b.example", CodeNotAllowed)

	s = w.open() // in the middle
	if len(s.Keys()) != 2 {
		t.Fatalf("%d keys after a restart", len(s.Keys()))
	}
	w.wantValid("b.example", ca.pebble.Issuer)
	w.deny("b.example", false)
	w.clock.move(2 * time.Minute)
	s.step(t.Context())
	if keys := s.Keys(); len(keys) != 1 || s.state.keys[0].id == old {
		t.Errorf("%d keys in the end", len(keys))
	}
	if b := w.wantValid("b.example", ca.pebble.Issuer); sha256.Sum256(b.RawSubjectPublicKeyInfo) == old {
		t.Error("b has the old key")
	}
}

func TestExternalAccountIsBound(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef0123456789abcdef")
	w := newWorld(t, "bank.example")
	ca := w.pebble(pebbletest.Options{EAB: map[string][]byte{"ours": key}})
	s := w.open()
	s.step(t.Context())
	wantProblem(t, s, "bank.example", CodeAccount)
	if ca.counted("newAccount") != 0 {
		t.Error("the CA was asked in vain")
	}
	w.cfg.ACME.EAB = &EAB{KeyID: "ours", Key: key}
	w.cfg.ACME.Profile = "short"
	w.clock.move(time.Hour)
	s = w.open()
	s.step(t.Context())
	w.wantValid("bank.example", ca.pebble.Issuer)

	w.cfg.ACME.Profile, w.cfg.Names = "none such", []string{"other.example"}
	s = w.open()
	s.step(t.Context())
	if r := wantProblem(t, s, "other.example", CodeProfile); !strings.Contains(r.Actual, "short") {
		t.Errorf("%v", r)
	}
}

func TestNamesThatTheCARefusesDoNotHoldOthersBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "*.bank.example", "bank.example", "blocked.example", "denied.example")
	ca := w.pebble(pebbletest.Options{Blocked: []string{"blocked.example"}})
	w.deny("denied.example", true)
	s := w.open()
	s.step(t.Context())
	w.wantValid("bank.example", ca.pebble.Issuer)
	wantProblem(t, s, "*.bank.example", CodeWildcard)
	wantProblem(t, s, "blocked.example", CodeIdentifier)
	if r := wantProblem(t, s, "denied.example", CodeNotAllowed); !strings.Contains(r.Actual, "ingress-host-not-allowed") {
		t.Errorf("%v", r)
	}
	if stateOf(t, s, "denied.example").Orders != 0 {
		t.Error("an order for a host that the manifest does not list")
	}
}

func TestNewNameIsServedSoon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := w.pebble(pebbletest.Options{})
	s := w.open()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- s.Run(ctx) }()
	changed := s.Changed()
	if err := s.SetNames([]string{"bank.example"}); err != nil {
		t.Fatal(err)
	}
	<-changed
	w.wantValid("bank.example", ca.pebble.Issuer)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.SetNames([]string{"Not A Name"}); err == nil {
		t.Error("a name that is none")
	}
}

func TestLostAccountIsMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bank.example")
	ca := w.pebble(pebbletest.Options{})
	s := w.open()
	s.step(t.Context())
	if err := ca.pebble.Stop(); err != nil {
		t.Fatal(err)
	}
	other := pebbletest.Start(t, pebbletest.Options{HTTPPort: w.httpPort, TLSPort: w.tlsPort})
	proxy := newGate(t, other)
	ca.answer(func(w http.ResponseWriter, r *http.Request, _ string) bool { proxy.proxy.ServeHTTP(w, r); return true })
	if err := s.SetNames([]string{"bank.example", "new.example"}); err != nil {
		t.Fatal(err)
	}
	s.step(t.Context())
	wantProblem(t, s, "new.example", CodeAccount)
	w.clock.move(time.Hour)
	s.step(t.Context())
	w.wantValid("new.example", other.Issuer)
	w.wantValid("bank.example", ca.pebble.Issuer)
}
