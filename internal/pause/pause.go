// SPDX-License-Identifier: Apache-2.0

// Package pause has loops wait between their rounds, and keeps this invariant:
// whatever they wait for, they end with their context.
package pause

import (
	"context"
	"time"
)

// For waits for d, a kick or the end of ctx. A nil kick never comes.
func For(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-timer.C:
	}
}
