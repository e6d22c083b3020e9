// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// maxWaiting is how many enrolments may wait for a processor: a second's
	// work for two of them.
	maxWaiting = 1024
	// retryAtLeast and retrySpread say when a caller that was turned away may
	// come again: not all at once.
	retryAtLeast = 1 * time.Second
	retrySpread  = 4 * time.Second
)

// gate lets as many enrolments be worked on as there are processors for the
// cryptography, some wait, and tells the rest when to come again. Without it
// a rush would make everybody too late.
type gate struct {
	working chan struct{}
	waiting atomic.Int64
}

func newGate() *gate { return &gate{working: make(chan struct{}, 2*runtime.GOMAXPROCS(0))} }

// enter waits for a turn; leave must be called after it.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.working <- struct{}{}:
		return nil
	default:
	}
	if g.waiting.Add(1) > maxWaiting {
		g.waiting.Add(-1)
		return &refusal{
			code: codeBusy, detail: fmt.Sprintf("%d enrolments wait already", maxWaiting),
			retryAfter: retryAtLeast + rand.N(retrySpread),
		}
	}
	defer g.waiting.Add(-1)
	select {
	case g.working <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.working }
