// SPDX-License-Identifier: Apache-2.0

// Package clock is the CDS's time. Its invariant: it never goes backwards, also
// not across restarts, and never faster or slower than 500 ppm against the
// monotonic clock, whatever the host does to the wall clock.
//
// A host that sets the wall clock can so move the CDS's time by 43 seconds in a
// day. How far it can move the monotonic clock depends on the TEE, see Source.
package clock

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// maxSlew is 500 ppm: what NTP calls the largest tolerable error of an
	// ordinary oscillator (RFC 5905, PHI and the discipline's limit).
	maxSlew = 2000 // one in so many
	// jump is how far the wall clock must move against the monotonic clock
	// between two readings to be counted, beyond what it may drift.
	jump = time.Second
)

// Config is what a clock is given; all but Floor and Root are required.
type Config struct {
	Wall  func() time.Time     // the machine's clock
	Mono  func() time.Duration // since any moment; never backwards
	Floor time.Time            // the latest time an earlier run has shown; zero where there is none
	Root  string               // of the file system, for Source; "/" when empty
	Log   *slog.Logger
}

// Clock is safe for concurrent use.
type Clock struct {
	cfg    Config
	source string

	mu    sync.Mutex
	now   time.Time     // what was returned last
	mono  time.Duration // and when
	wall  time.Time     // what the wall clock said then
	rest  time.Duration // of what passed, for which no slew was granted yet
	jumps uint64
}

// Status is what metrics show.
type Status struct {
	Now    time.Time
	Offset time.Duration // of the wall clock from Now
	Jumps  uint64        // of the wall clock, since the start
	Source string
}

// Monotonic is the process's monotonic clock for Config.
func Monotonic() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// New starts a clock at the wall clock's time, or at the floor if that is later.
func New(cfg Config) (*Clock, error) {
	if cfg.Wall == nil || cfg.Mono == nil || cfg.Log == nil {
		return nil, errors.New("starting the CDS's clock: the configuration lacks a part")
	}
	// Readings of time.Now carry a monotonic part, which would hide a jump.
	c := &Clock{cfg: cfg, source: Source(cfg.Root), wall: cfg.Wall().Round(0), mono: cfg.Mono()}
	if c.now = c.wall; c.now.Before(cfg.Floor) {
		c.now = cfg.Floor.Round(0)
		cfg.Log.Warn("the machine's clock is behind the time this CDS has shown before: its time goes on from there, and slowly until the clock catches up",
			"clock", c.wall, "shown", cfg.Floor, "behind", c.now.Sub(c.wall))
	}
	return c, nil
}

// Now is the time.
func (c *Clock) Now() time.Time {
	now, _ := c.read()
	return now
}

// read advances the clock and returns its time and the wall clock's offset.
func (c *Clock) read() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.cfg.Wall().Round(0), c.cfg.Mono()
	passed := max(0, mono-c.mono)
	c.rest += passed // readings may be closer than maxSlew nanoseconds
	slew := c.rest / maxSlew
	c.rest %= maxSlew
	if moved := wall.Sub(c.wall) - passed; moved > jump+slew || moved < -jump-slew {
		c.jumps++
		c.cfg.Log.Warn("the machine's clock jumped; it is approached slowly, if it stays there", "by", moved, "clock", wall, "jumps", c.jumps)
	}
	offset := wall.Sub(c.now.Add(passed))
	c.now = c.now.Add(passed + min(max(offset, -slew), slew))
	c.mono, c.wall = max(mono, c.mono), wall
	return c.now, wall.Sub(c.now)
}

// Status reads the clock and says how it is.
func (c *Clock) Status() Status {
	now, offset := c.read()
	return Status{Now: now, Offset: offset, Jumps: c.Jumped(), Source: c.source}
}

// Jumped is how often the wall clock jumped.
func (c *Clock) Jumped() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jumps
}

// Source is the package's Source, as it was at the start.
func (c *Clock) Source() string { return c.source }
