// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/store/storetest"
)

// model is what a random run of several replicas has to keep true: what was
// acknowledged is in the log for good and once, and nothing is half done.
type model struct {
	w        *world
	rnd      *rand.Rand
	replicas []*replica
	watchers []func()
	began    int

	mu    sync.Mutex
	acked map[string]Receipt
}

const modelReplicas = 3

func newModel(t *testing.T, seed uint64) *model {
	m := &model{w: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 0)), acked: map[string]Receipt{}}
	for range modelReplicas {
		m.replicas = append(m.replicas, nil)
		m.watchers = append(m.watchers, func() {})
		m.reopen(len(m.replicas) - 1)
	}
	return m
}

// reopen restarts a replica, which crashed or not.
func (m *model) reopen(i int) {
	m.watchers[i]()
	if m.replicas[i] != nil {
		m.replicas[i].crash()
	}
	m.replicas[i] = m.w.open()
	m.watchers[i] = m.w.onlyGrows(m.replicas[i])
}

// faults makes some of the next operations of some replicas fail.
func (m *model) faults() {
	for range m.rnd.IntN(4) {
		f := m.replicas[m.rnd.IntN(modelReplicas)].faulty
		f.Fail(1+m.rnd.IntN(4), storetest.Kind(m.rnd.IntN(3)), storetest.When(m.rnd.IntN(2))) //nolint:gosec // small
	}
	if m.rnd.IntN(6) == 0 {
		f := m.replicas[m.rnd.IntN(modelReplicas)].faulty
		f.Crash(1+m.rnd.IntN(4), storetest.Any, storetest.When(m.rnd.IntN(2))) //nolint:gosec // small
	}
}

// round has changes made at the same time, through random replicas.
func (m *model) round() {
	m.faults()
	var wg sync.WaitGroup
	for range 1 + m.rnd.IntN(12) {
		r, name := m.replicas[m.rnd.IntN(modelReplicas)], fmt.Sprintf("change %d", m.began)
		m.began++
		wg.Go(func() {
			receipt, err := r.Do(m.w.t.Context(), entry(name))
			if err != nil {
				if !errors.Is(err, ErrUnavailable) {
					m.w.t.Errorf("%s: %v, want nil or ErrUnavailable", name, err)
				}
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.acked[name] = receipt
		})
	}
	wg.Wait()
	for i, r := range m.replicas {
		if m.rnd.IntN(5) == 0 {
			m.reopen(i)
		} else {
			r.faulty.Heal()
		}
	}
}

// check reads the store as a newcomer does.
func (m *model) check() {
	t := m.w.t
	times, records, now := m.w.logged()
	for evidence, n := range times {
		if n != 1 {
			t.Errorf("%s is logged %d times", evidence, n)
		}
	}
	if got := uint64(len(records)); now.Head.DenyList.Version != got {
		t.Errorf("%d changes are in the log and %d in the head: one of them is half done", got, now.Head.DenyList.Version)
	}
	for name, r := range m.acked {
		if times[evidence(name)] != 1 || !bytes.Equal(records[r.Index], r.Entry) {
			t.Errorf("%s was acknowledged and is not at index %d of the log", name, r.Index)
		}
	}
}

// provable checks every receipt against what every replica believes now.
func (m *model) provable() {
	for i, r := range m.replicas {
		if err := r.Refresh(m.w.t.Context()); err != nil {
			m.w.t.Errorf("replica %d: %v", i, err)
			continue
		}
		for name, receipt := range m.acked {
			if err := m.w.proven(receipt, r.Ledger, r.View()); err != nil {
				m.w.t.Errorf("%s at replica %d: %v", name, i, err)
			}
		}
	}
}

// rollBack puts an old store back, lets a newcomer go on with it for a while,
// and requires that whoever knows better stops.
func (m *model) rollBack(old storetest.Snapshot, size int64) {
	m.w.store.Restore(old)
	newcomer := m.w.open()
	for i := range m.rnd.IntN(40) {
		_, _ = newcomer.Do(m.w.t.Context(), entry(fmt.Sprintf("forked %d", i)))
	}
	for i, r := range m.replicas {
		err := r.Refresh(m.w.t.Context())
		if behind := r.View().Head.Size <= size; behind != (err == nil) || err != nil && !errors.Is(err, ErrRolledBack) {
			m.w.t.Errorf("replica %d saw %d entries, the store was put back to %d: %v", i, r.View().Head.Size, size, err)
		}
		if err == nil {
			continue
		}
		if _, err := r.Do(m.w.t.Context(), entry("after")); !errors.Is(err, ErrRolledBack) {
			m.w.t.Errorf("replica %d goes on: %v", i, err)
		}
	}
}

func TestReplicasKeepWhatTheyAcknowledgedWhateverTheStoreDoes(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	first := uint64(time.Now().UnixNano()) //nolint:gosec // any
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			m := newModel(t, seed)
			var old storetest.Snapshot
			var size int64
			for i := range 25 {
				m.round()
				if i == 15 {
					old = m.w.store.Snapshot()
					_, _, view := m.w.logged()
					size = view.Head.Size
				}
			}
			m.check()
			m.provable()
			m.rollBack(old, size)
			for _, stop := range m.watchers {
				stop()
			}
			if len(m.acked) == 0 {
				t.Error("nothing was acknowledged: the run shows nothing")
			}
		})
	}
}
