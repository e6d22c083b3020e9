// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/c8s-dev/c8s/cds/store"
)

// ErrInjected is what operations fail with that were told to.
var ErrInjected = errors.New("injected fault")

// Kind selects operations: Get and Scan are reads, Commit is a write.
type Kind uint8

// The kinds of operations.
const (
	Any Kind = iota
	Read
	Write
)

// When says on which side of the operation's effect it fails.
type When uint8

const (
	// Before: it has no effect.
	Before When = iota
	// After: it has its effect and only the answer is lost.
	After
)

// Faulty passes operations on to a store and fails those it was told to. To
// crash a server at every step, count the operations of a whole run and then
// repeat the run with Crash at the first, the second and so on, Before and
// After, each time going on with a new server on the store below.
type Faulty struct {
	store.Store

	mu     sync.Mutex
	counts [3]int
	faults []fault
	down   bool
	gate   *Gate
}

type fault struct {
	kind  Kind
	at    int // as counted in counts[kind]
	when  When
	crash bool
}

// Gate holds operations up.
type Gate struct {
	arrived chan struct{}
	opened  chan struct{}
	open    func()
}

// Arrived is signalled when an operation came to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets through what waits and what will come.
func (g *Gate) Open() { g.open() }

// NewFaulty wraps a store; without further calls it fails nothing.
func NewFaulty(s store.Store) *Faulty { return &Faulty{Store: s} }

// Fail makes the n-th operation of a kind from now fail, one being the next.
func (f *Faulty) Fail(n int, kind Kind, when When) { f.add(n, kind, when, false) }

// Crash does the same, and every operation that begins after it fails too,
// without effect, as if the process had died there.
func (f *Faulty) Crash(n int, kind Kind, when When) { f.add(n, kind, when, true) }

func (f *Faulty) add(n int, kind Kind, when When, crash bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault{kind, f.counts[kind] + n, when, crash})
}

// Heal forgets the faults that are still to come, and a crash.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.down = nil, false
}

// Block holds up every operation that begins from now on, before it has any
// effect, until the gate is opened or the operation's context ends.
func (f *Faulty) Block() *Gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &Gate{arrived: make(chan struct{}, 1), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	f.gate = g
	return g
}

// Count says how many operations of a kind have begun, failed ones included.
func (f *Faulty) Count(kind Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[kind]
}

// Get implements store.Store.
func (f *Faulty) Get(ctx context.Context, key string) (v store.Value, err error) {
	err = f.do(ctx, Read, func() (err error) {
		v, err = f.Store.Get(ctx, key)
		return err
	})
	if err != nil {
		return store.Value{}, err
	}
	return v, nil
}

// Scan implements store.Store. One that fails after its effect has called fn
// for everything.
func (f *Faulty) Scan(ctx context.Context, prefix string, fn func(string, store.Value) error) error {
	return f.do(ctx, Read, func() error { return f.Store.Scan(ctx, prefix, fn) })
}

// Commit implements store.Store.
func (f *Faulty) Commit(ctx context.Context, t store.Txn) (v store.Version, err error) {
	err = f.do(ctx, Write, func() (err error) {
		v, err = f.Store.Commit(ctx, t)
		return err
	})
	if err != nil {
		return 0, err
	}
	return v, nil
}

func (f *Faulty) do(ctx context.Context, kind Kind, op func() error) error {
	hit, gate := f.enter(kind)
	if gate != nil {
		select {
		case gate.arrived <- struct{}{}:
		default:
		}
		select {
		case <-gate.opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if hit == nil {
		return op()
	}
	if hit.when == Before {
		return fmt.Errorf("%w before operation %d", ErrInjected, hit.at)
	}
	op()
	return fmt.Errorf("%w after operation %d", ErrInjected, hit.at)
}

// enter counts an operation and says what shall become of it.
func (f *Faulty) enter(kind Kind) (*fault, *Gate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[Any]++
	f.counts[kind]++
	if f.down {
		return &fault{when: Before, at: f.counts[Any]}, f.gate
	}
	for i, ft := range f.faults {
		if (ft.kind == Any || ft.kind == kind) && f.counts[ft.kind] == ft.at {
			f.faults = append(f.faults[:i:i], f.faults[i+1:]...)
			f.down = ft.crash
			return &ft, f.gate
		}
	}
	return nil, f.gate
}
