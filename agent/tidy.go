// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	tidyInterval = time.Second
	// tidyAfter is how many tunnels must have come since the last time.
	tidyAfter = 64
)

// tidy lets time pass. And it gives memory back once a burst of new tunnels is over. A handshake
// leaves some 100 KB of garbage behind, and the collector would keep it until
// the heap doubles: on a quiet node that may be for ever.
func (a *Agent) tidy(ctx context.Context) error {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	var tidied, last uint64
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		a.passTime(a.cfg.Now())
		now := a.proxy.Stats().Handshakes
		if now == last && now-tidied >= tidyAfter {
			debug.FreeOSMemory()
			tidied = now
		}
		last = now
	}
}

// passTime ends what only the clock ends: the acceptance of retired roots and
// of values of the manifest that expire. It asks whether something changed
// since it looked last, so it depends neither on timers that were right when
// they were set nor on a clock that does not jump.
func (a *Agent) passTime(now time.Time) {
	now = now.Round(0) // the manifest speaks of wall clocks
	last := a.looked
	a.looked = now
	change, any := a.manifest.Load().Manifest.NextChange(last)
	switch {
	case any && !change.After(now), now.Before(last):
		a.mesh.roots.Expire(now)
		a.judgeAgain()
	case a.mesh.roots.Expire(now):
		a.recheck()
	}
}
