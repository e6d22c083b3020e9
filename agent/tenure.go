// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"sync"

	"github.com/c8s-dev/c8s/loader"
)

// tenure is the kernel as pods see it. While another daemon owns the node it
// only remembers what they want; begin makes it so. So a successor brings its
// pods as far as open without touching what they have now, and a daemon that
// handed over cannot undo what its successor does.
type tenure struct {
	kernel

	mu   sync.Mutex // held across calls: hold returns when none is under way
	own  bool
	pods map[int]loader.Pod // by the link's index
	gone map[int]struct{}   // deleted while another daemon owned the node
}

func newTenure(k kernel) *tenure {
	return &tenure{kernel: k, pods: map[int]loader.Pod{}, gone: map[int]struct{}{}}
}

// LockLink implements kernel. The owner's link watcher has locked the link.
func (t *tenure) LockLink(ctx context.Context, ifindex int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.own {
		return nil
	}
	return t.kernel.LockLink(ctx, ifindex)
}

// SetPod implements kernel.
func (t *tenure) SetPod(p loader.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pods[p.Ifindex] = p
	delete(t.gone, p.Ifindex)
	if !t.own {
		return nil
	}
	return t.kernel.SetPod(p)
}

// DeletePod implements kernel.
func (t *tenure) DeletePod(ifindex int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pods, ifindex)
	if !t.own {
		t.gone[ifindex] = struct{}{}
		return nil
	}
	return t.kernel.DeletePod(ifindex)
}

// begin makes the kernel what the pods want, from now on too. It returns the
// links of pods that this failed for, which are closed.
func (t *tenure) begin() (failed map[int]error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own = true
	failed = map[int]error{}
	for ifindex := range t.gone {
		if err := t.kernel.DeletePod(ifindex); err != nil {
			failed[ifindex] = fmt.Errorf("removing a pod that has gone: %w", err)
		}
	}
	clear(t.gone)
	for ifindex, p := range t.pods {
		if err := t.kernel.SetPod(p); err != nil {
			failed[ifindex] = err
		}
	}
	return failed
}

// hold leaves the kernel to another daemon.
func (t *tenure) hold() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own = false
}

// knows reports whether a pod of ours is on the link.
func (t *tenure) knows(ifindex int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.pods[ifindex]
	return ok
}
