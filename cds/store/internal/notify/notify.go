// SPDX-License-Identifier: Apache-2.0

// Package notify tells watchers inside one process that a key changed. No
// signal is lost: a watcher that has not taken the last one yet is going to
// look at the key anyway.
package notify

import (
	"context"
	"sync"
)

// Hub is ready for use as its zero value.
type Hub struct {
	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

type watcher struct {
	key string
	ch  chan struct{}
	// stop undoes the context's hold on the watcher.
	stop func() bool
}

// Watch returns a channel of capacity one that is signalled by Changed, until
// ctx ends or the hub is closed, which closes it.
func (h *Hub) Watch(ctx context.Context, key string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &watcher{key: key, ch: make(chan struct{}, 1)}
	if h.closed {
		close(w.ch)
		return w.ch
	}
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	h.watchers[w] = struct{}{}
	w.stop = context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.remove(w)
	})
	return w.ch
}

// Changed signals the watchers of every key that changed reports.
func (h *Hub) Changed(changed func(key string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if changed(w.key) {
			Signal(w.ch)
		}
	}
}

// Close closes every watcher's channel.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		w.stop()
		h.remove(w)
	}
}

// remove needs h.mu. Both an ending context and Close may get here.
func (h *Hub) remove(w *watcher) {
	if _, ok := h.watchers[w]; ok {
		delete(h.watchers, w)
		close(w.ch)
	}
}

// Signal leaves one signal in a channel of capacity one.
func Signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
