// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// bell tells any number of waiters that something changed; they look for
// themselves what.
type bell struct {
	mu   sync.Mutex
	next chan struct{}
}

// heard returns a channel that closes at the next ring. Ask for it before
// looking, or a change between the two is missed.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// HeldBackError says why a pod is not open.
type HeldBackError struct {
	Pod    string // namespace/name, or the UID while nobody named the pod
	State  State
	Reason string // stable code; empty when it is merely not so far yet
	Detail string
}

func (e *HeldBackError) Error() string {
	s := fmt.Sprintf("pod %s has no place in the mesh: it is %s", e.Pod, e.State)
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// WaitOpen returns when the pod is open to the mesh, and a HeldBackError when
// the manifest or a deny list refuses it or ctx ends first. What may pass by
// itself, a CDS that is away, is waited for.
func (a *Agent) WaitOpen(ctx context.Context, uid string) error {
	for {
		changed := a.changed.heard()
		held := a.heldBack(uid)
		if held == nil {
			return nil
		}
		if held.State == StateLocked && held.Reason != "" {
			return held // only a new manifest or deny list can change that
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(held, context.Cause(ctx))
		}
	}
}

// heldBack is nil for a pod that is open.
func (a *Agent) heldBack(uid string) *HeldBackError {
	a.mu.Lock()
	m := a.pods[uid]
	a.mu.Unlock()
	if m == nil {
		return &HeldBackError{Pod: uid, State: StateSeen}
	}
	s := m.pod.statusNow()
	if s.State == StateOpen {
		return nil
	}
	return &HeldBackError{Pod: s.Pod, State: s.State, Reason: s.Reason, Detail: s.Detail}
}
