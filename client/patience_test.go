// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// late is an ingress that still follows what was in force before the operators
// published twice, and a client whose clock only its pauses move.
type late struct {
	w      *clienttest.World
	in     *clienttest.Ingress
	cfg    Config
	nonces atomic.Int64 // evidence that was asked for one client

	mu     sync.Mutex
	now    time.Time
	slept  []time.Duration
	during func(n int) error // of the n-th pause, from 1
}

func newLate(t *testing.T) *late {
	w := clienttest.New(t)
	l := &late{w: w, in: w.Ingress(), now: time.Now()}
	l.in.Lie(func(_ string, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("nonce") {
			l.nonces.Add(1)
		}
		return false
	})
	l.cfg = config(w, l.in)
	l.cfg.Now = func() time.Time {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.now
	}
	l.cfg.Sleep = func(ctx context.Context, d time.Duration) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now, l.slept = l.now.Add(d), append(l.slept, d)
		if l.during == nil {
			return nil
		}
		return l.during(len(l.slept))
	}
	return l
}

func (l *late) pauses() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.slept)
}

// denyTwice leaves the ingress with no list at all.
func (l *late) denyTwice(t *testing.T) (code string) {
	first := l.w.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, policytest.DB))
	for _, list := range []*policy.SignedDenyList{first, l.w.DenyList(t, first)} {
		if _, err := l.w.CDS.Client().PublishDenyList(t.Context(), list.Envelope); err != nil {
			t.Fatal(err)
		}
	}
	l.in.Say(func(s *proof.Statement) { s.DenyList = proof.Followed{} })
	return proof.CodeDenyListBehind
}

// publishTwice leaves it with the first manifest.
func (l *late) publishTwice(t *testing.T) (code string) {
	old, at := proof.Followed{Version: l.w.Manifest.Version, Digest: l.w.Digest}, l.w.Fixture
	for range 2 {
		at = at.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = !m.Workloads[1].HostAccess })
		if _, err := l.w.CDS.Client().PublishManifest(t.Context(), at.Envelope); err != nil {
			t.Fatal(err)
		}
	}
	l.in.Say(func(s *proof.Statement) { s.Manifest = old })
	return proof.CodeManifestBehind
}

// all are the pauses after which an ingress is given up.
func all() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 1250 * ms}
}

func TestIngressThatDoesNotFollowYetIsAskedAgain(t *testing.T) {
	const remedy = "wait a minute; if it stays, the ingress is cut off from its CDS"
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, l *late)
		follows int // in which pause the ingress does; zero for never
		refused bool
		pauses  []time.Duration
	}{
		"young, renewed at once":         {follows: 1, pauses: all()[:1]},
		"young, renewed in time":         {follows: 3, pauses: all()[:3]},
		"young, renewed at the very end": {follows: 5, pauses: all()},
		"young, never renewed":           {refused: true, pauses: all()},
		"old":                            {prepare: func(_ *testing.T, l *late) { l.now = l.now.Add(youngFor + 2*time.Second) }, follows: 1, refused: true},
		"a clock that is far behind":     {prepare: func(_ *testing.T, l *late) { l.now = l.now.Add(-youngFor - 2*time.Second) }, follows: 1, refused: true},
	} {
		for kind, publish := range map[string]func(*late, *testing.T) string{"deny list": (*late).denyTwice, "manifest": (*late).publishTwice} {
			for _, nonce := range []bool{false, true} {
				t.Run(name+"/"+kind+map[bool]string{true: "/nonce"}[nonce], func(t *testing.T) {
					l := newLate(t)
					code := publish(l, t)
					if tt.prepare != nil {
						tt.prepare(t, l)
					}
					l.during = func(n int) error {
						if n == tt.follows {
							l.in.Say(nil)
						}
						return nil
					}
					l.cfg.FreshEvidence = nonce
					got, err := send(t, newClient(t, l.cfg))
					var refused *Refusal
					switch {
					case !tt.refused && err != nil:
						t.Error(err)
					case tt.refused && (!errors.As(err, &refused) || got != code || refused.Step.Remedy != remedy):
						t.Errorf("code %q, want %q: %v", got, code, err)
					case tt.refused:
						l.in.NothingArrived(t)
					}
					if got := l.pauses(); !slices.Equal(got, tt.pauses) {
						t.Errorf("pauses %v, want %v", got, tt.pauses)
					}
					asked := int64(0)
					if nonce {
						if asked = 1; !tt.refused {
							asked = 2
						}
					}
					if n := l.nonces.Load(); n != asked {
						t.Errorf("evidence with a nonce was asked for %d times, want %d", n, asked)
					}
				})
			}
		}
	}
}

// A report has the documents it was made from, and no others.
func TestReportOfAnIngressThatFollowedInTime(t *testing.T) {
	l := newLate(t)
	l.denyTwice(t)
	l.during = func(n int) error {
		if n == 2 {
			l.in.Say(nil)
		}
		return nil
	}
	r, err := newClient(t, l.cfg).Verify(t.Context(), host)
	if err != nil || r.Overall != Partly || r.DenyList.Version != 2 {
		t.Fatalf("%v: %+v", err, r)
	}
	paths := map[string]int{}
	for _, d := range r.Documents {
		if paths[d.Path]++; d.Path != proof.PathAttestation {
			continue
		}
		if a, err := proof.ParseAttestation(d.Body); err != nil || a.Statement.DenyList.Version != 2 {
			t.Errorf("the attestation of before: %v", err)
		}
	}
	if n := paths[proof.PathAttestation]; n != 1 || paths[proof.PathCDS+"/v1/denylist"] == 0 {
		t.Errorf("%d attestations, want 1: %v", n, paths)
	}
}

func TestNothingButBeingBehindIsWaitedFor(t *testing.T) {
	l := newLate(t)
	l.denyTwice(t)
	l.in.Say(func(s *proof.Statement) { s.DenyList, s.Hosts = proof.Followed{}, []string{"other.example"} })
	if _, err := send(t, newClient(t, l.cfg)); err == nil || len(l.pauses()) != 0 {
		t.Errorf("pauses %v: %v", l.pauses(), err)
	}
	l.in.NothingArrived(t)
}

// Who goes on to be behind, each time of something else, gets no more time.
func TestIngressThatStaysBehindIsGivenUp(t *testing.T) {
	l := newLate(t)
	code := l.denyTwice(t)
	l.during = func(n int) error {
		l.in.Say(func(s *proof.Statement) {
			s.DenyList = proof.Followed{}
			if n%2 == 1 {
				s.DenyList = proof.Followed{Version: 1, Digest: policytest.Digest("of nobody")}
			}
		})
		return nil
	}
	if got, err := send(t, newClient(t, l.cfg)); got != code || !slices.Equal(l.pauses(), all()) {
		t.Errorf("code %q, pauses %v: %v", got, l.pauses(), err)
	}
	l.in.NothingArrived(t)
}

// Requests that wait for one another wait no longer than one alone.
func TestManyRequestsWaitOnce(t *testing.T) {
	for name, h1 := range map[string]bool{"HTTP/1.1": true, "HTTP/2": false} {
		t.Run(name, func(t *testing.T) {
			l := newLate(t)
			code := l.denyTwice(t)
			l.cfg.OnlyHTTP1 = h1
			c := newClient(t, l.cfg)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if got, err := send(t, c); got != code {
						t.Errorf("code %q: %v", got, err)
					}
				})
			}
			wg.Wait()
			if got := l.pauses(); !slices.Equal(got, all()) {
				t.Errorf("pauses %v, want those of one", got)
			}
			l.in.NothingArrived(t)
			l.in.Say(nil)
			if got, err := send(t, c); err != nil {
				t.Errorf("when it follows: %q: %v", got, err)
			}
		})
	}
}

func TestCallersThatLeaveAreNotHeldUp(t *testing.T) {
	l := newLate(t)
	code := l.denyTwice(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.during = func(int) error { cancel(); return ctx.Err() }
	c := newClient(t, l.cfg)
	if _, err := c.Prove(ctx, host); !errors.Is(err, context.Canceled) || len(l.pauses()) != 1 {
		t.Errorf("pauses %v: %v", l.pauses(), err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	l.cfg.Within = firstPause // it would be over when the pause is
	l.during = nil
	if _, err := newClient(t, l.cfg).Prove(short, host); codeOf(err) != code && !errors.Is(err, context.DeadlineExceeded) || len(l.pauses()) != 1 {
		t.Errorf("pauses %v: %v", l.pauses(), err)
	}
	l.in.NothingArrived(t)
}

func TestPauseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := sleep(ctx, firstPause); err != nil || time.Since(began) != firstPause {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
