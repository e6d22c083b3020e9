// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"time"
)

// patience is how long anything of a node or cluster may take, some ten times
// what it takes on a quiet machine. It bounds a hang; nothing is measured.
const patience = 2 * time.Minute

// Poll calls f until it succeeds, or until ctx or our patience ends; the
// error then holds f's last one.
func Poll(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // not one that only says that time is up
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: last: %w", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
