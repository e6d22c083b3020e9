// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// locked signs a successor of the manifest that comes into force after d, on
// the replicas' clocks.
func (g *group) locked(prev *policytest.Fixture, d time.Duration, edit func(*policy.Manifest)) *policytest.Fixture {
	g.t.Helper()
	return prev.Next(g.t, func(m *policy.Manifest) {
		m.NotBefore = g.replicas[0].clock.now().Add(d).UTC().Truncate(time.Second).Format(time.RFC3339)
		edit(m)
	})
}

func hostAccess(i int) func(*policy.Manifest) {
	return func(m *policy.Manifest) { m.Workloads[i].HostAccess = !m.Workloads[i].HostAccess }
}

func (g *group) publish(r *replica, f *policytest.Fixture) {
	g.t.Helper()
	if _, err := g.client(nil, r).PublishManifest(g.t.Context(), f.Envelope); err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) advance(d time.Duration) {
	for _, r := range g.replicas {
		r.clock.advance(d)
	}
}

func count(entries []*translog.Entry, match func(*translog.Entry) bool) (n int) {
	for _, e := range entries {
		if match(e) {
			n++
		}
	}
	return n
}

func TestTimeLockedManifestComesIntoForceOnceOnEveryReplica(t *testing.T) {
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	next := g.locked(g.f, time.Hour, hostAccess(0))
	done, err := g.client(nil, a).PublishManifest(t.Context(), next.Envelope)
	if err != nil || done.InForce || done.NotBefore.IsZero() {
		t.Fatalf("published: %+v, %v; want that it waits", done, err)
	}
	// The same once more changes nothing.
	if done, err := g.client(nil, b).PublishManifest(t.Context(), next.Envelope); err != nil || done.InForce {
		t.Fatalf("published again: %+v, %v", done, err)
	}
	if string(b.document("/v1/manifest/pending")) != string(next.Envelope) {
		t.Error("the other replica does not show what is pending")
	}
	g.advance(time.Hour - 10*time.Second)
	g.poke(a)
	for _, r := range g.replicas {
		if got := r.srv.Manifest(); got.Digest != g.f.Digest {
			t.Fatalf("%s: version %d is in force too early", r.name, got.Manifest.Version)
		}
	}
	g.advance(11 * time.Second)
	g.poke(b)
	for _, r := range g.replicas {
		r.inForce(next.Digest)
	}
	// It is still followed: what was once a deadlock showed here.
	third := next.Next(t, hostAccess(1))
	g.publish(b, third)
	for _, r := range g.replicas {
		r.inForce(third.Digest)
		r.ready()
	}
	for digest, want := range map[policy.Digest]map[translog.Type]int{
		next.Digest:  {translog.TypePending: 1, translog.TypeManifest: 1},
		third.Digest: {translog.TypePending: 0, translog.TypeManifest: 1},
	} {
		for kind, n := range want {
			if got := count(a.entries(), func(e *translog.Entry) bool { return e.Type == kind && e.Digest == digest }); got != n {
				t.Errorf("%d entries of type %s for %s, want %d", got, kind, digest, n)
			}
		}
	}
}

func TestTimeLockSurvivesARestartAndCanBeSuperseded(t *testing.T) {
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	second := g.locked(g.f, time.Hour, hostAccess(0))
	g.publish(a, second)
	fork := g.locked(g.f, 2*time.Hour, hostAccess(1))
	_, err := g.client(nil, b).PublishManifest(t.Context(), fork.Envelope)
	refusedWith(t, err, "manifest-pending")
	later := g.locked(g.f, 2*time.Hour, func(m *policy.Manifest) {
		hostAccess(1)(m)
		m.Version = 3
	})
	g.publish(b, later)
	for _, r := range g.replicas {
		r.kill()
	}
	for _, r := range g.replicas {
		r.launch()
		r.ready()
	}
	g.advance(time.Hour + 10*time.Second) // the first one's time
	g.poke(a)
	for _, r := range g.replicas {
		if got := r.srv.Manifest(); got.Digest != g.f.Digest {
			t.Errorf("%s: version %d is in force, which was superseded", r.name, got.Manifest.Version)
		}
	}
	g.advance(time.Hour)
	g.poke(a)
	for _, r := range g.replicas {
		r.inForce(later.Digest)
	}
}

// A replica that has not heard that a pending manifest was superseded does not
// put it in force. Its time comes while the replica's reading of the store is
// held up, so that the activation is decided before the news and made after.
func TestSupersededManifestIsNotActivatedByAReplicaThatWasAway(t *testing.T) {
	t.Parallel() // it waits most of the time
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	const lock = 5 * time.Second // enough to publish another
	second := g.locked(g.f, lock, hostAccess(0))
	at, _ := second.Manifest.NotBeforeTime()
	g.publish(b, second)
	gate := b.store.Block()
	later := g.locked(g.f, time.Hour, func(m *policy.Manifest) {
		hostAccess(1)(m)
		m.Version = 3
	})
	if _, err := g.client(nil, a).PublishManifest(t.Context(), later.Envelope); err != nil {
		t.Fatal(err)
	}
	await(t, "the first manifest's time", func() error {
		if left := at.Sub(b.clock.now()) + 300*time.Millisecond; left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	}, b.log)
	gate.Open()
	g.poke(b)
	g.poke(a)
	if n := count(a.entries(), func(e *translog.Entry) bool { return e.Type == translog.TypeManifest && e.Digest == second.Digest }); n != 0 {
		t.Error("the superseded manifest came into force")
	}
}

// What waits follows the manifest before. Once another is in force it never
// can, and must not keep anybody from following the operators.
func TestManifestInForceDropsWhatWaited(t *testing.T) {
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	waiting := g.locked(g.f, time.Hour, func(m *policy.Manifest) {
		hostAccess(0)(m)
		m.Version = 7
	})
	g.publish(a, waiting)
	now := g.f.Next(t, hostAccess(1))
	g.publish(b, now)
	g.advance(2 * time.Hour)
	g.poke(a)
	third := now.Next(t, hostAccess(1))
	g.publish(a, third)
	for _, r := range g.replicas {
		r.inForce(third.Digest)
	}
}

// The operators of a manifest that waits must have signed the deny list that is
// in force when its time comes, or no replica could start again.
func TestTimeLockedManifestOfOtherOperatorsWaitsForTheirDenyList(t *testing.T) {
	g := newGroup(t, 1).startAll()
	a := g.replicas[0]
	others, keys := policytest.Operators(t, 1, 1)
	signBoth := &policytest.Fixture{Signed: g.f.Signed, Operators: g.f.Operators, Keys: append(append(g.f.Keys[:0:0], g.f.Keys...), keys...)}
	next := g.locked(signBoth, time.Hour, func(m *policy.Manifest) { m.Operators = others })
	g.publish(a, next)
	list := g.f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "nobody"))
	if _, err := g.client(nil).PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	g.advance(time.Hour + time.Minute)
	g.poke(a)
	both := signBoth.DenyList(t, list)
	if got := a.srv.Manifest(); got.Digest != g.f.Digest {
		t.Fatalf("version %d is in force, whose operators did not sign the deny list", got.Manifest.Version)
	}
	if _, err := g.client(nil).PublishDenyList(t.Context(), both.Envelope); err != nil {
		t.Fatal(err)
	}
	a.inForce(next.Digest)
}
