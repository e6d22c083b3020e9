// SPDX-License-Identifier: Apache-2.0

package ingress

import "sync"

// running counts what is under way. Other than a sync.WaitGroup it may be
// waited for while things begin.
type running struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed at 0; nil: nobody waits
}

func (r *running) begin() {
	r.mu.Lock()
	r.n++
	r.mu.Unlock()
}

func (r *running) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

func (r *running) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// none is closed as soon as nothing is under way.
func (r *running) none() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	return r.idle
}
