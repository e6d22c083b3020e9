// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// A replica that is cut off from the store vouches for the time for ten seconds
// more, and issues nothing. When the store is back it goes on, never backwards.
func TestBeaconStopsWhileTheStoreIsAwayAndNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		s := storetest.NewFaulty(storetest.NewMemory())
		r := l.mustRun(s)
		defer r.stop()
		last := time.Time{}
		say := func() error {
			raw, err := r.c.beacon()
			if err != nil {
				return err
			}
			key, err := r.c.bundle.BeaconKey()
			if err != nil {
				return err
			}
			b, err := beacon.Verify(raw, key, policytest.TrustDomain, time.Now(), beaconPeriod+time.Second)
			if err != nil {
				return err
			}
			if b.Time.Before(last) {
				t.Errorf("a beacon of %s after one of %s", b.Time, last)
			}
			last = b.Time
			return nil
		}
		for range 20 {
			if err := say(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		gate := s.Block()
		time.Sleep(9 * time.Second)
		if err := say(); err != nil {
			t.Errorf("nine seconds after the store went away: %v", err)
		}
		time.Sleep(5 * time.Second)
		if err := say(); codeOf(err) != codeStoreUnavailable {
			t.Errorf("long after: %v, want %s", err, codeStoreUnavailable)
		}
		if err := r.Ready(); codeOf(err) != codeStoreUnavailable {
			t.Errorf("it is ready to issue: %v", err)
		}
		if r.c.touch.why() == nil {
			t.Error("watchers are not told")
		}
		gate.Open()
		time.Sleep(10 * time.Second)
		if err := say(); err != nil {
			t.Errorf("when the store is back: %v", err)
		}
		if _, err := r.c.policies.publishDenyList(t.Context(), l.f.DenyList(t, nil).Envelope); err != nil {
			t.Errorf("denying when the store is back: %v", err)
		}
	})
}
