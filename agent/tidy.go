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

// tidy ends what only the clock ends: the acceptance of retired roots. And it
// gives memory back once a burst of new tunnels is over. A handshake
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
		if a.mesh.expireRoots(a.cfg.Now()) {
			a.recheck()
		}
		now := a.proxy.Stats().Handshakes
		if now == last && now-tidied >= tidyAfter {
			debug.FreeOSMemory()
			tidied = now
		}
		last = now
	}
}
