// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/translog"
)

// maxCheckpoints is how many different checkpoints of callers are remembered
// as true.
const maxCheckpoints = 4096

// checkpoints judges what callers remember of the log: they are the memory of
// a service whose own is in other hands.
type checkpoints struct {
	verifier note.Verifier
	origin   string

	mu   sync.Mutex
	true map[translog.Checkpoint]struct{}
}

func newCheckpoints(origin string, v note.Verifier) checkpoints {
	return checkpoints{verifier: v, origin: origin, true: map[translog.Checkpoint]struct{}{}}
}

func (c *checkpoints) known(cp translog.Checkpoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.true[cp]
	return ok
}

func (c *checkpoints) remember(cp translog.Checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.true) >= maxCheckpoints {
		clear(c.true)
	}
	c.true[cp] = struct{}{}
}

// observe compares a caller's checkpoint with the log. One that this log's key
// signed and that the log does not extend stops the replica: the store is not
// the newest.
func (c *core) observe(ctx context.Context, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	cp, err := translog.OpenCheckpoint(raw, c.checkpoints.origin, c.checkpoints.verifier)
	if err != nil {
		return refuse(codeCheckpoint, "%v", err)
	}
	if c.checkpoints.known(*cp) {
		return nil
	}
	if err := c.ledger.Contains(ctx, *cp); err != nil {
		return fmt.Errorf("judging the caller's checkpoint: %w", err)
	}
	c.checkpoints.remember(*cp)
	return nil
}
