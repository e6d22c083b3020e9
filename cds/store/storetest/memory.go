// SPDX-License-Identifier: Apache-2.0

// Package storetest holds what tests need of stores: the suite that every
// implementation passes, one in memory that can be rolled back, and one that
// fails when told to.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/internal/notify"
)

var errClosed = errors.New("the store is closed")

// Memory is a store that ends with the process.
type Memory struct {
	hub notify.Hub

	mu     sync.Mutex
	closed bool
	state  Snapshot
}

// Snapshot is everything a Memory held at one moment. It never changes.
type Snapshot struct {
	last   store.Version
	values map[string]store.Value
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{state: Snapshot{values: make(map[string]store.Value)}}
}

// Snapshot remembers the state for Restore.
func (m *Memory) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Snapshot{m.state.last, maps.Clone(m.state.values)}
}

// Restore does what a host does that puts back an old disk: versions too are
// as they were, and will be given out again. Watchers are signalled.
func (m *Memory) Restore(s Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = Snapshot{s.last, maps.Clone(s.values)}
	m.hub.Changed(func(string) bool { return true })
}

// Tamper replaces what a key holds, or makes it, without telling anybody.
func (m *Memory) Tamper(key string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.values[key] = store.Value{Data: bytes.Clone(data), Version: max(1, m.state.values[key].Version)}
}

// Get implements store.Store.
func (m *Memory) Get(ctx context.Context, key string) (store.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return store.Value{}, err
	}
	v, ok := m.state.values[key]
	if !ok {
		return store.Value{}, fmt.Errorf("reading %q from the store: %w", key, store.ErrNotFound)
	}
	return copied(v), nil
}

// Scan implements store.Store.
func (m *Memory) Scan(ctx context.Context, prefix string, fn func(string, store.Value) error) error {
	m.mu.Lock()
	if err := m.usable(ctx); err != nil {
		m.mu.Unlock()
		return err
	}
	values := maps.Clone(m.state.values)
	m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(key, copied(values[key])); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements store.Store.
func (m *Memory) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	if err := t.Check(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return 0, err
	}
	for _, c := range t.If {
		if v := m.state.values[c.Key].Version; v != c.Version {
			return 0, fmt.Errorf("%w: %q has version %d, not %d", store.ErrConflict, c.Key, v, c.Version)
		}
	}
	maps.DeleteFunc(m.state.values, func(key string, _ store.Value) bool { return t.Changes(key) })
	version := store.Version(0)
	if len(t.Put) > 0 {
		m.state.last++
		version = m.state.last
	}
	for _, p := range t.Put {
		m.state.values[p.Key] = copied(store.Value{Data: p.Data, Version: version})
	}
	m.hub.Changed(t.Changes)
	return version, nil
}

// Watch implements store.Store.
func (m *Memory) Watch(ctx context.Context, key string) <-chan struct{} {
	return m.hub.Watch(ctx, key)
}

// Close implements store.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.hub.Close()
	return nil
}

// Reopen undoes Close, as a restart of the process does: what was committed is
// still there.
func (m *Memory) Reopen() *Memory {
	s := m.Snapshot()
	return &Memory{state: s}
}

// usable needs m.mu.
func (m *Memory) usable(ctx context.Context) error {
	if m.closed {
		return errClosed
	}
	return ctx.Err()
}

func copied(v store.Value) store.Value {
	v.Data = append([]byte{}, v.Data...)
	return v
}
