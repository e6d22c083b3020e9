// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// crashing tells when the store has crashed.
type crashing struct {
	*storetest.Faulty
	once sync.Once
	down chan struct{}
}

func newCrashing(m *storetest.Memory) *crashing {
	return &crashing{Faulty: storetest.NewFaulty(m), down: make(chan struct{})}
}

func (c *crashing) see(err error) {
	if errors.Is(err, storetest.ErrInjected) {
		c.once.Do(func() { close(c.down) })
	}
}

func (c *crashing) Get(ctx context.Context, key string) (store.Value, error) {
	v, err := c.Faulty.Get(ctx, key)
	c.see(err)
	return v, err
}

func (c *crashing) Scan(ctx context.Context, prefix string, fn func(string, store.Value) error) error {
	err := c.Faulty.Scan(ctx, prefix, fn)
	c.see(err)
	return err
}

func (c *crashing) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	v, err := c.Faulty.Commit(ctx, t)
	c.see(err)
	return v, err
}

// crashCase is one thing a CDS does.
type crashCase struct {
	name string
	edit func(*lone)
	// before brings the store to where it begins; nil leaves it empty.
	before func(*lone, *running)
	// do does it, in a process whose store may crash; nil does nothing.
	do func(context.Context, *lone, *running) error
	// start says that the store may crash from the start on.
	start bool
	// after checks what is left; done says that it was reported as done.
	after func(t testing.TB, l *lone, r *running, done bool)
}

func TestCrashAtEveryStepLeavesTheOldStateOrTheNew(t *testing.T) {
	for _, tc := range crashCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLone(t)
			if tc.edit != nil {
				tc.edit(l)
			}
			first := storetest.NewMemory()
			if tc.before != nil {
				r := l.mustRun(first)
				tc.before(l, r)
				r.stop()
			}
			begin := first.Snapshot()
			hit := 0
			for n := 1; ; n++ {
				crashed := false
				for _, when := range []storetest.When{storetest.Before, storetest.After} {
					if l.crash(tc, begin, n, when) {
						crashed = true
						hit++
					}
					if t.Failed() {
						t.Fatalf("crashed at operation %d, effect lost: %t", n, when == storetest.Before)
					}
				}
				if !crashed {
					break
				}
			}
			if hit < 2 {
				t.Errorf("only %d crashes: the test shows nothing", hit)
			}
		})
	}
}

// crash lets the process die at its n-th operation and restarts it. It reports
// whether the process lived that long.
func (l *lone) crash(tc crashCase, begin storetest.Snapshot, n int, when storetest.When) (crashed bool) {
	l.forgetLog()
	memory := storetest.NewMemory()
	memory.Restore(begin)
	s := newCrashing(memory)
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	go func() {
		select {
		case <-s.down:
		case <-ctx.Done():
		}
		cancel()
	}()
	if tc.start {
		s.Crash(n, storetest.Any, when)
	}
	r, err := l.run(ctx, s)
	done := false
	if err == nil && tc.do != nil {
		if !tc.start {
			s.Crash(n, storetest.Any, when)
		}
		done = tc.do(ctx, l, r) == nil
	}
	select {
	case <-s.down:
		crashed = true
	default:
	}
	if r != nil {
		r.stop()
	}
	again := l.mustRun(memory)
	defer again.stop()
	again.whole(l.t)
	if tc.after != nil {
		tc.after(l.t, l, again, done)
	}
	again.goesOn(l)
	return crashed
}

// goesOn requires that the CDS does everything it is there for.
func (r *running) goesOn(l *lone) {
	l.t.Helper()
	if _, err := r.issueOne(l.t.Context()); err != nil {
		l.t.Errorf("issuing after the restart: %v", err)
	}
	list := l.f.DenyList(l.t, r.c.policies.current().deny, policytest.Deny(policy.DenyWorkload, "nobody"))
	if _, err := r.c.policies.publishDenyList(l.t.Context(), list.Envelope); err != nil {
		l.t.Errorf("denying after the restart: %v", err)
	}
	r.whole(l.t)
}

func crashCases() []crashCase {
	nothing := func(*lone, *running) {}
	return []crashCase{
		{name: "bootstrap", start: true},
		{name: "restart", start: true, before: nothing},
		publishing(), denying(), locking(), activating(),
		{
			name: "issue", before: nothing,
			do: func(ctx context.Context, _ *lone, r *running) error {
				_, err := r.issueOne(ctx)
				return err
			},
			after: func(t testing.TB, _ *lone, r *running, done bool) {
				n := 0
				for _, e := range r.entries(t) {
					if e.Type == translog.TypeIssuance {
						n++
					}
				}
				if n > 1 || done && n != 1 {
					t.Errorf("%d issuances are logged, one was asked for (answered: %t)", n, done)
				}
			},
		},
		{
			name: "renew the issuing key", before: nothing,
			do: func(ctx context.Context, _ *lone, r *running) error { return r.c.newIntermediate(ctx) },
		},
		sharing(),
	}
}

func publishing() crashCase {
	var next *policytest.Fixture
	return crashCase{
		name: "publish a manifest", before: func(l *lone, _ *running) {
			next = l.f.Next(l.t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = !m.Workloads[0].HostAccess })
		},
		do: func(ctx context.Context, _ *lone, r *running) error {
			_, err := r.c.policies.publishManifest(ctx, next.Envelope)
			return err
		},
		after: func(t testing.TB, l *lone, r *running, done bool) { r.oneOf(t, l.f.Digest, next.Digest, done) },
	}
}

// oneOf requires that one of two manifests is in force: the new one if that was
// reported.
func (r *running) oneOf(t testing.TB, old, next policy.Digest, done bool) {
	t.Helper()
	if got := r.Manifest().Digest; got != next && (done || got != old) {
		t.Errorf("manifest %s is in force; was %s, published (acknowledged: %t) %s", got, old, done, next)
	}
}

func denying() crashCase {
	var list *policy.SignedDenyList
	return crashCase{
		name: "publish a deny list", before: func(l *lone, _ *running) {
			list = l.f.DenyList(l.t, nil, policytest.Deny(policy.DenyWorkload, "somebody"))
		},
		do: func(ctx context.Context, _ *lone, r *running) error {
			_, err := r.c.policies.publishDenyList(ctx, list.Envelope)
			return err
		},
		after: func(t testing.TB, _ *lone, r *running, done bool) {
			if got := r.c.policies.current().deny; got == nil && done || got != nil && got.Digest != list.Digest {
				t.Errorf("deny list %v is in force, acknowledged: %t", got, done)
			}
		},
	}
}

// locked signs a successor that comes into force an hour from now.
func (l *lone) locked() *policytest.Fixture {
	return l.f.Next(l.t, func(m *policy.Manifest) {
		m.NotBefore = time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
	})
}

func locking() crashCase {
	var next *policytest.Fixture
	return crashCase{
		name: "publish a time-locked manifest", before: func(l *lone, _ *running) { next = l.locked() },
		do: func(ctx context.Context, _ *lone, r *running) error {
			_, err := r.c.policies.publishManifest(ctx, next.Envelope)
			return err
		},
		after: func(t testing.TB, l *lone, r *running, done bool) {
			r.oneOf(t, l.f.Digest, l.f.Digest, true)
			if got := r.c.policies.current().pending; got == nil && done || got != nil && got.Digest != next.Digest {
				t.Errorf("%v is pending, acknowledged: %t", got, done)
			}
		},
	}
}

func activating() crashCase {
	var next *policytest.Fixture
	return crashCase{
		name: "activate a time-locked manifest", before: func(l *lone, r *running) {
			next = l.locked()
			if _, err := r.c.policies.publishManifest(l.t.Context(), next.Envelope); err != nil {
				l.t.Fatal(err)
			}
			l.ahead = 2 * time.Hour
		},
		// Starting is what activates: the time has come.
		start: true,
		do: func(ctx context.Context, _ *lone, r *running) error {
			return until(ctx, func() bool { return r.Manifest().Digest == next.Digest })
		},
		after: func(t testing.TB, _ *lone, r *running, _ bool) {
			if err := until(t.Context(), func() bool { return r.Manifest().Digest == next.Digest }); err != nil {
				t.Errorf("version %d is in force after the time", r.Manifest().Manifest.Version)
			}
		},
	}
}

// until waits for something that happens by itself.
func until(ctx context.Context, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for !so() {
		if err := pauseFor(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func sharing() crashCase {
	var next *policytest.Fixture
	shared := func(r *running) func() bool {
		return func() bool { return r.c.ledger.View().Head.Recovery.Document != "" }
	}
	return crashCase{
		name: "make recovery shares", before: func(l *lone, r *running) {
			next = l.f.Next(l.t, func(m *policy.Manifest) { m.Recovery = recoverySection(l.t, 3) })
		},
		do: func(ctx context.Context, _ *lone, r *running) error {
			if _, err := r.c.policies.publishManifest(ctx, next.Envelope); err != nil {
				return err
			}
			return until(ctx, shared(r))
		},
		// A start makes them where they are missing.
		after: func(t testing.TB, l *lone, r *running, done bool) {
			r.oneOf(t, l.f.Digest, next.Digest, done)
			if r.Manifest().Digest != next.Digest {
				return
			}
			if err := until(t.Context(), shared(r)); err != nil {
				t.Fatal("there are no recovery shares")
			}
			r.whole(t)
		},
	}
}

// recoverySection names n holders of shares, of whom two are needed.
func recoverySection(t testing.TB, n int) *policy.Recovery {
	t.Helper()
	r := &policy.Recovery{Threshold: 2}
	for i := range n {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r.Keys = append(r.Keys, policy.RecoveryKey{Name: fmt.Sprintf("holder-%d", i+1), PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())})
	}
	return r
}

// A TEE that seals nothing has the secret of a new CA in its memory alone: no
// failure that passes may lose it.
func TestStoreThatFailsWhileACDSStartsIsAskedAgain(t *testing.T) {
	const most = 16
	for _, when := range []storetest.When{storetest.Before, storetest.After} {
		for n := 1; n <= most; n++ {
			t.Run(fmt.Sprintf("operation %d, effect lost: %t", n, when == storetest.Before), func(t *testing.T) {
				t.Parallel()
				l := newLone(t)
				l.sealer = false
				s := storetest.NewFaulty(storetest.NewMemory())
				s.Fail(n, storetest.Any, when)
				r := l.mustRun(s)
				s.Heal()
				r.goesOn(l)
			})
		}
	}
}
