// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"testing"
	"time"
)

func TestLeafLivesAsLongAsConfiguredAndNeverLonger(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time { return now }
	for _, tt := range []struct {
		name        string
		life, limit time.Duration // limit from now; zero is none
		want        time.Duration
	}{
		{"default", 0, 0, MaxLife - skew},
		{"longest", MaxLife, 0, MaxLife - skew},
		{"short", 10 * time.Second, 0, 10 * time.Second},
		{"the issuer's ends earlier", 10 * time.Second, 3 * time.Second, 3 * time.Second},
		{"the issuer's ends later", 10 * time.Second, time.Minute, 10 * time.Second},
	} {
		c, err := New("c8s.example", tt.life, clock)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var limit time.Time
		if tt.limit != 0 {
			limit = now.Add(tt.limit)
		}
		from, to := c.Validity(limit)
		if to.Sub(now) != tt.want || to.Sub(from) > MaxLife {
			t.Errorf("%s: ends in %s, want %s; whole life %s", tt.name, to.Sub(now), tt.want, to.Sub(from))
		}
	}
	for _, life := range []time.Duration{-time.Second, MaxLife + 1} {
		if _, err := New("c8s.example", life, clock); err == nil {
			t.Errorf("a life of %s is accepted", life)
		}
	}
}
