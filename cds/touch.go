// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"sync"
	"time"
)

// touchEvery is how soon a replica notices that it is out of touch.
const touchEvery = time.Second

// touch tells all who wait for news at once that none will come: the replica
// has lost touch with the store, and what it knows may be out of date.
type touch struct {
	mu    sync.Mutex
	ended chan struct{} // closed while out of touch
	err   error         // why
}

func newTouch() *touch { return &touch{ended: make(chan struct{})} }

// lost returns a channel that is closed when the replica is out of touch.
func (t *touch) lost() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// why is the reason while the replica is out of touch.
func (t *touch) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *touch) set(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.err == nil:
		close(t.ended)
	case err == nil && t.err != nil:
		t.ended = make(chan struct{})
	}
	t.err = err
}

// keepInTouch looks after the touch until ctx ends.
func (c *core) keepInTouch(ctx context.Context) error {
	for {
		c.touch.set(c.ledger.Err())
		if err := pauseFor(ctx, touchEvery); err != nil {
			return err
		}
	}
}
