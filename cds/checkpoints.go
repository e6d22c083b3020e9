// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
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
	true map[[sha256.Size]byte]struct{} // by the note's hash
}

func newCheckpoints(origin string, v note.Verifier) checkpoints {
	return checkpoints{verifier: v, origin: origin, true: map[[sha256.Size]byte]struct{}{}}
}

func (c *checkpoints) known(signed []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.true[sha256.Sum256(signed)]
	return ok
}

// remember keeps a checkpoint of this log: one that was judged, or that this
// replica signs and hands out. Callers show those soon, and verifying its own
// signature would be a tenth of a pod's issuance.
func (c *checkpoints) remember(signed []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.true) >= maxCheckpoints {
		clear(c.true)
	}
	c.true[sha256.Sum256(signed)] = struct{}{}
}

// observe compares a caller's checkpoint with the log. One that this log's key
// signed and that the log does not extend stops the replica: the store is not
// the newest.
func (c *core) observe(ctx context.Context, raw []byte) error {
	if len(raw) == 0 || c.checkpoints.known(raw) {
		return c.ledger.Broken()
	}
	cp, err := translog.OpenCheckpoint(raw, c.checkpoints.origin, c.checkpoints.verifier)
	if err != nil {
		return refuse(codeCheckpoint, "%v", err)
	}
	if err := c.ledger.Contains(ctx, *cp); err != nil {
		return fmt.Errorf("judging the caller's checkpoint: %w", err)
	}
	c.checkpoints.remember(raw)
	return nil
}
