// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// beacon reads and verifies a beacon of this replica, by its own clock.
func (r *replica) beacon() *beacon.Beacon {
	r.g.t.Helper()
	d, err := r.g.client(nil, r).Documents(r.g.t.Context())
	if err != nil {
		r.g.t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.Get(r.g.t.Context(), "/v1/beacon")
	if err != nil {
		r.g.t.Fatal(err)
	}
	key, err := d.Bundle().BeaconKey()
	if err != nil {
		r.g.t.Fatal(err)
	}
	now := r.clock.now
	if r.g.now != nil {
		now = r.g.now
	}
	b, err := beacon.Verify(raw, key, policytest.TrustDomain, now(), 24*time.Hour)
	if err != nil {
		r.g.t.Fatal(err)
	}
	return b
}

// The wall clock is the host's. A jump of it changes no certificate's dates and
// no beacon.
func TestJumpsOfTheWallClockMoveNoDates(t *testing.T) {
	g := newGroup(t, 1)
	r := g.replicas[0]
	var jump atomic.Int64
	r.edit = func(c *cds.Config) {
		c.Wall = func() time.Time { return r.clock.now().Add(time.Duration(jump.Load())) }
	}
	g.startAll()
	before := r.beacon()
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour, 365 * 24 * time.Hour, 0} {
		jump.Store(int64(by))
		node, err := g.client(nil).EnrolNode(t.Context(), g.machine("node"))
		if err != nil {
			t.Fatalf("after a jump by %s: %v", by, err)
		}
		now := r.clock.now()
		for what, at := range map[string]time.Time{"begins": node.TLS.Leaf.NotBefore.Add(time.Minute), "ends": node.TLS.Leaf.NotAfter.Add(-time.Hour + time.Minute)} {
			if off := at.Sub(now).Abs(); off > 5*time.Second {
				t.Errorf("after a jump by %s the certificate %s %s off", by, what, off)
			}
		}
		r.clock.advance(11 * time.Second) // to the next beacon
		after := r.beacon()
		if passed := after.Time.Sub(before.Time); passed < 0 || passed > time.Minute {
			t.Errorf("after a jump by %s the beacon says that %s passed", by, passed)
		}
		before = after
	}
	if n := r.metric("c8s_cds_clock_jumps_total"); n < 4 {
		t.Errorf("%g jumps are counted, want 4", n)
	}
}

// A restart with the machine's clock turned back goes on from the time that the
// shared state has.
func TestClockBehindWhatWasShownGoesOnFromThere(t *testing.T) {
	g := newGroup(t, 1).startAll()
	r := g.replicas[0]
	r.clock.advance(time.Hour)
	first, err := g.client(nil).EnrolNode(t.Context(), g.machine("node"))
	if err != nil {
		t.Fatal(err)
	}
	shown := r.entries()
	r.kill()
	r.clock.advance(-3 * time.Hour)
	r.launch()
	r.ready()
	g.now = func() time.Time { return time.Now().Add(time.Hour) } // the clients' clocks are right
	again, err := g.client(nil).EnrolNode(t.Context(), g.machine("node"))
	if err != nil {
		t.Fatal(err)
	}
	if again.TLS.Leaf.NotAfter.Before(first.TLS.Leaf.NotAfter) {
		t.Errorf("the second certificate ends at %s, the first at %s", again.TLS.Leaf.NotAfter, first.TLS.Leaf.NotAfter)
	}
	if last := shown[len(shown)-1].Time; r.beacon().Time.Before(last) {
		t.Errorf("the beacon is before %s, which was shown before", last)
	}
	entries := r.entries()
	for i := 1; i < len(entries); i++ {
		if entries[i].Time.Before(entries[i-1].Time) {
			t.Errorf("entry %d is older than the one before", i)
		}
	}
}

// Of two replicas one has a wrong clock. Neither can know which; the one behind
// stops, and goes on when it is set right.
func TestReplicaBehindAnothersClockIsNotReady(t *testing.T) {
	g := newGroup(t, 2).startAll()
	a, b := g.replicas[0], g.replicas[1]
	b.clock.advance(10 * time.Minute)
	g.now = b.clock.now
	g.poke(b)
	g.now = a.clock.now
	await(t, "the other to notice", func() error {
		if a.srv.Ready() == nil {
			return errNotYet
		}
		return nil
	}, a.log)
	_, err := g.client(nil, a).EnrolNode(t.Context(), g.machine("node"))
	refusedWith(t, err, "not-ready")
	a.clock.advance(10 * time.Minute)
	a.ready()
	g.poke(a)
}
