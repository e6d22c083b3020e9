// SPDX-License-Identifier: Apache-2.0

package tunnel

import "sync"

// Budget bounds the memory that connections hold in large buffers, for each
// owner and for all. Nobody waits for it: who is over it goes on in small ones.
// A nil Budget bounds nothing. Safe for concurrent use.
type Budget struct {
	total, perOwner int64

	mu      sync.Mutex
	used    int64
	owners  map[string]int64 // only those that hold something
	refused uint64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(total, perOwner int64) *Budget {
	return &Budget{total: total, perOwner: perOwner, owners: map[string]int64{}}
}

// Take reports whether owner may hold n bytes more. Nobody gets beyond what is
// left for all: as the rest gets small, so does everybody's share, and however
// many owners take all they can, the next one finds some.
func (b *Budget) Take(owner string, n int64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.owners[owner] + n
	if held > min(b.perOwner, b.total-b.used) {
		b.refused++
		return false
	}
	b.owners[owner] = held
	b.used += n
	return true
}

// Give takes back what Take gave.
func (b *Budget) Give(owner string, n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.owners[owner] -= n; b.owners[owner] == 0 {
		delete(b.owners, owner)
	}
}

// Refused counts how often there was no room.
func (b *Budget) Refused() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// Used is what all hold together.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
