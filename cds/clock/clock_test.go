// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/clock"
)

// machine has the clocks that a test sets.
type machine struct {
	wall time.Time
	mono time.Duration
	log  bytes.Buffer
}

func start() time.Time { return time.Unix(1_800_000_000, 0) }

func newMachine() *machine { return &machine{wall: start(), mono: time.Hour} }

// pass lets true time pass.
func (m *machine) pass(d time.Duration) { m.wall, m.mono = m.wall.Add(d), m.mono+d }

func (m *machine) clock(t testing.TB, floor time.Time) *clock.Clock {
	t.Helper()
	c, err := clock.New(clock.Config{
		Wall: func() time.Time { return m.wall }, Mono: func() time.Duration { return m.mono }, Floor: floor, Root: t.TempDir(),
		Log: slog.New(slog.NewTextHandler(&m.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGoodClockIsFollowedExactly(t *testing.T) {
	m := newMachine()
	c := m.clock(t, start().Add(-time.Hour))
	for range 100 {
		m.pass(17 * time.Second)
		if now := c.Now(); !now.Equal(m.wall) {
			t.Fatalf("%s, the wall clock says %s", now, m.wall)
		}
	}
	if c.Jumped() != 0 || m.log.Len() != 0 {
		t.Errorf("%d jumps, log %s", c.Jumped(), &m.log)
	}
}

func TestDriftWithinTheLimitIsFollowed(t *testing.T) {
	for _, ppm := range []time.Duration{-499, -100, 100, 499} {
		m := newMachine()
		c := m.clock(t, time.Time{})
		for range 1000 {
			m.pass(time.Second)
			m.wall = m.wall.Add(ppm * time.Microsecond)
			if now := c.Now(); !now.Equal(m.wall) {
				t.Fatalf("%d ppm: %s, the wall clock says %s", ppm, now, m.wall)
			}
		}
		if c.Jumped() != 0 {
			t.Errorf("%d ppm: %d jumps", ppm, c.Jumped())
		}
	}
}

func TestJumpIsCountedLoggedAndApproachedSlowly(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour, 3 * time.Second, -3 * time.Second} {
		m := newMachine()
		c := m.clock(t, time.Time{})
		before := c.Now()
		m.wall = m.wall.Add(by)
		if now := c.Now(); !now.Equal(before) {
			t.Errorf("a jump by %s moved the clock by %s", by, now.Sub(before))
		}
		m.pass(1000 * time.Second)
		moved := c.Now().Sub(before) - 1000*time.Second
		if want := 500 * time.Millisecond; moved != want && moved != -want || (moved > 0) != (by > 0) {
			t.Errorf("after a jump by %s and 1000 s the clock was %s off", by, moved)
		}
		if s := c.Status(); s.Jumps != 1 || s.Offset != m.wall.Sub(s.Now) || c.Jumped() != 1 {
			t.Errorf("a jump by %s: %+v", by, s)
		}
		if n := strings.Count(m.log.String(), "jumped"); n != 1 {
			t.Errorf("%d lines of a jump: %s", n, &m.log)
		}
		// It does catch up with a clock that stays.
		for range 3 * 3600 {
			m.pass(time.Second)
		}
		m.pass(3000 * time.Hour)
		if now := c.Now(); !now.Equal(m.wall) {
			t.Errorf("after a jump by %s it never caught up: %s behind", by, m.wall.Sub(now))
		}
	}
}

func TestManyReadingsDoNotStopTheSlew(t *testing.T) {
	m := newMachine()
	c := m.clock(t, time.Time{})
	m.wall = m.wall.Add(time.Hour)
	before := c.Now()
	for range 1_000_000 {
		m.pass(time.Microsecond)
		c.Now()
	}
	if moved := c.Now().Sub(before) - time.Second; moved != 500*time.Microsecond {
		t.Errorf("the clock moved by %s in a second, want 500µs", moved)
	}
}

func TestTimeGoesOnFromTheFloor(t *testing.T) {
	m := newMachine()
	floor := start().Add(time.Hour)
	c := m.clock(t, floor)
	if now := c.Now(); !now.Equal(floor) {
		t.Fatalf("%s, the floor is %s", now, floor)
	}
	if !strings.Contains(m.log.String(), "behind") {
		t.Errorf("nothing was said: %s", &m.log)
	}
	m.pass(2000 * time.Second)
	if want := floor.Add(1999 * time.Second); !c.Now().Equal(want) { // slowly, until the wall clock catches up
		t.Errorf("%s, want %s", c.Now(), want)
	}
	if c.Jumped() != 0 {
		t.Error("a floor is not a jump")
	}
}

func TestClockNeverGoesBackOrTooFast(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		m := newMachine()
		floor := start().Add(time.Duration(random.Int64N(int64(2*time.Hour))) - time.Hour)
		c := m.clock(t, floor)
		last := c.Now()
		first, began := last, m.mono
		for range 1000 {
			m.mono += time.Duration(random.Int64N(int64(10 * time.Second)))
			switch random.IntN(4) {
			case 0:
				m.wall = m.wall.Add(time.Duration(random.Int64N(int64(48*time.Hour))) - 24*time.Hour)
			case 1: // a monotonic clock that breaks its word
				back := time.Duration(random.Int64N(int64(time.Second)))
				m.mono -= back
				if now := c.Now(); now.Before(last) {
					t.Fatalf("%s after %s", now, last)
				}
				m.mono += back
			default:
				m.wall = m.wall.Add(5 * time.Second)
			}
			now := c.Now()
			if now.Before(last) || now.Before(floor) {
				t.Fatalf("%s after %s, floor %s", now, last, floor)
			}
			last = now
			passed := m.mono - began
			if off := now.Sub(first) - passed; off > passed/2000+time.Microsecond || off < -passed/2000-time.Microsecond {
				t.Fatalf("off by %s after %s", off, passed)
			}
		}
	}
}

func TestMonotonicReadingOfTheWallClockHidesNoJump(t *testing.T) {
	// time.Time.Sub of two readings of time.Now ignores the wall clock.
	base, mono := time.Now(), time.Duration(0)
	wall := base
	c, err := clock.New(clock.Config{
		Wall: func() time.Time { return wall }, Mono: func() time.Duration { return mono }, Log: slog.New(slog.DiscardHandler), Root: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := c.Now(); now != now.Round(0) {
		t.Error("the clock's time carries a monotonic reading")
	}
	wall = base.Round(0).Add(time.Hour)
	c.Now()
	if c.Jumped() != 1 {
		t.Error("the jump was not seen")
	}
}

func TestClockIsCompleteOrNone(t *testing.T) {
	good := clock.Config{Wall: time.Now, Mono: clock.Monotonic(), Log: slog.New(slog.DiscardHandler)}
	for name, edit := range map[string]func(*clock.Config){
		"wall": func(c *clock.Config) { c.Wall = nil }, "mono": func(c *clock.Config) { c.Mono = nil }, "log": func(c *clock.Config) { c.Log = nil },
	} {
		cfg := good
		edit(&cfg)
		if _, err := clock.New(cfg); err == nil {
			t.Errorf("without %s: started", name)
		}
	}
}

func TestManyReadersSeeOneOrder(t *testing.T) {
	c, err := clock.New(clock.Config{Wall: time.Now, Mono: clock.Monotonic(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := c.Now()
			for range 1000 {
				now := c.Now()
				if now.Before(last) {
					t.Errorf("%s after %s", now, last)
				}
				last = now
			}
		})
	}
	wg.Wait()
}

func BenchmarkNow(b *testing.B) {
	c, err := clock.New(clock.Config{Wall: time.Now, Mono: clock.Monotonic(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Now()
		}
	})
}
