// SPDX-License-Identifier: Apache-2.0

// Package lru remembers the results of expensive checks. Its invariant: at most
// a fixed number of results is kept, whatever is asked for.
package lru

import (
	"container/list"
	"sync"
)

// Key is the SHA-256 of everything the result follows from.
type Key [32]byte

// Cache maps keys to values and forgets the least recently used ones. It is
// safe for concurrent use. The zero value is not usable: call New.
type Cache[V any] struct {
	mu      sync.Mutex
	limit   int
	entries map[Key]*list.Element
	order   *list.List // of entry[V], most recently used first
}

type entry[V any] struct {
	key   Key
	value V
}

// New returns a cache of at most limit values; limit must be positive.
func New[V any](limit int) *Cache[V] {
	return &Cache[V]{limit: limit, entries: make(map[Key]*list.Element, limit), order: list.New()}
}

// Get returns the value kept under key.
func (c *Cache[V]) Get(key Key) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		var none V
		return none, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*entry[V]).value, true
}

// Put keeps value under key, and forgets the least recently used value when
// there are too many.
func (c *Cache[V]) Put(key Key, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		e.Value.(*entry[V]).value = value
		c.order.MoveToFront(e)
		return
	}
	c.entries[key] = c.order.PushFront(&entry[V]{key, value})
	for len(c.entries) > c.limit {
		last := c.order.Back()
		delete(c.entries, c.order.Remove(last).(*entry[V]).key)
	}
}
