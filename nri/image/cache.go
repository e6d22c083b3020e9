// SPDX-License-Identifier: Apache-2.0

package image

import (
	"container/list"
	"sync"

	"github.com/c8s-dev/c8s/policy"
)

// cache keeps what follows from a digest, which never changes, and forgets the
// least recently used beyond a limit.
type cache[V any] struct {
	mu      sync.Mutex
	limit   int
	entries map[policy.Digest]*list.Element
	order   *list.List // of entry[V], most recently used first
}

type entry[V any] struct {
	key   policy.Digest
	value V
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, entries: map[policy.Digest]*list.Element{}, order: list.New()}
}

func (c *cache[V]) get(key policy.Digest) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[V]).value, true
}

func (c *cache[V]) put(key policy.Digest, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok {
		return // the same: it follows from the key
	}
	c.entries[key] = c.order.PushFront(entry[V]{key, value})
	if len(c.entries) > c.limit {
		delete(c.entries, c.order.Remove(c.order.Back()).(entry[V]).key)
	}
}
