// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
)

// brokenFor requires that the replica stopped, and stays so whatever happens
// to the store.
func brokenFor(t *testing.T, w *world, r *replica, what string) {
	t.Helper()
	if err := r.Refresh(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("%s: Refresh: %v, want ErrRolledBack", what, err)
	}
	for _, err := range []error{r.Err(), r.Broken()} {
		if !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s: %v, want ErrRolledBack", what, err)
		}
	}
	_ = r.Refresh(t.Context()) // the store may be the newest again
	_, before, _ := w.logged()
	if _, err := r.Do(t.Context(), entry("after "+what)); !errors.Is(err, ErrRolledBack) {
		t.Errorf("%s: Do: %v, want ErrRolledBack", what, err)
	}
	if err := r.Contains(t.Context(), translog.Checkpoint{}); !errors.Is(err, ErrRolledBack) {
		t.Errorf("%s: Contains: %v", what, err)
	}
	if _, after, _ := w.logged(); len(after) != len(before) {
		t.Errorf("%s: the replica that stopped changed the store", what)
	}
}

func TestRolledBackStoreStopsTheReplicaForGood(t *testing.T) {
	for _, forward := range []int{0, 1, 3, 4, 5, 300} {
		w := newWorld(t)
		r := w.open()
		r.do(t, "kept")
		old := w.store.Snapshot()
		for i := range 4 {
			r.do(t, fmt.Sprintf("lost %d", i))
		}
		newest := w.store.Snapshot()
		gate := r.faulty.Block() // it must not see the store while it is behind
		w.store.Restore(old)
		// Somebody who does not know better goes on with the old state: with
		// fewer, as many and more changes. With as many, the store gives out the
		// very version of the head that this replica knows.
		other := w.open()
		for i := range forward {
			other.do(t, fmt.Sprintf("forked %d", i))
		}
		gate.Open()
		what := fmt.Sprintf("rolled back by 4 and forward by %d", forward)
		brokenFor(t, w, r, what)
		w.store.Restore(newest)
		brokenFor(t, w, r, what+", then restored")
	}
}

func TestStoreThatContradictsItselfStopsTheReplica(t *testing.T) {
	for what, damage := range map[string]func(t *testing.T, w *world, r *replica){
		"head gone": func(t *testing.T, w *world, _ *replica) {
			if _, err := w.store.Commit(t.Context(), store.Txn{Delete: []string{HeadKey}}); err != nil {
				t.Fatal(err)
			}
		},
		"another log": func(t *testing.T, w *world, _ *replica) {
			other := newWorld(t)
			o := other.open()
			for i := range 9 {
				o.do(t, fmt.Sprintf("other %d", i))
			}
			w.store.Restore(other.store.Snapshot())
		},
		"time goes back": func(t *testing.T, w *world, r *replica) {
			head := r.View().Head
			head.Batches = append([]string{"x"}, head.Batches...)
			head.Time--
			tamper(t, w, head)
		},
		"older manifest": func(t *testing.T, w *world, r *replica) {
			r.do2(t, func(d *Draft) error {
				d.Head.Manifest = Ref{Version: 5, Digest: evidence("five")}
				return entry("five")(d)
			})
			head := r.View().Head
			head.Batches = append([]string{"x"}, head.Batches...)
			head.Manifest.Version--
			tamper(t, w, head)
		},
		"another manifest of the version": func(t *testing.T, w *world, r *replica) {
			head := r.View().Head
			head.Batches = append([]string{"x"}, head.Batches...)
			head.Manifest.Digest = evidence("another")
			tamper(t, w, head)
		},
		"older deny list": func(t *testing.T, w *world, r *replica) {
			head := r.View().Head
			head.Batches = append([]string{"x"}, head.Batches...)
			head.DenyList.Version--
			tamper(t, w, head)
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			r := w.open()
			r.do(t, "kept")
			newest := w.store.Snapshot()
			damage(t, w, r)
			if err := r.Refresh(t.Context()); !errors.Is(err, ErrRolledBack) {
				t.Fatalf("Refresh: %v, want ErrRolledBack", err)
			}
			w.store.Restore(newest)
			brokenFor(t, w, r, what)
		})
	}
}

func (r *replica) do2(t *testing.T, fn func(*Draft) error) {
	t.Helper()
	if _, err := r.Do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func tamper(t *testing.T, w *world, head Head) {
	t.Helper()
	raw, err := head.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: HeadKey, Data: raw}}}); err != nil {
		t.Fatal(err)
	}
}

// What was never committed is no rollback: values that do not hash to the head
// make the store useless, and its repair makes it useful again.
func TestDamagedLogIsNotBelievedAndNotForGood(t *testing.T) {
	w := newWorld(t)
	r, other := w.open(), w.open()
	gate := r.faulty.Block()
	other.do(t, "theirs")
	good := w.store.Snapshot()
	w.store.Tamper("log/piece/0000000000000000/01", []byte{0, 1, 'x'})
	gate.Open()
	if err := r.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) || r.Broken() != nil {
		t.Errorf("Refresh: %v (%v), want ErrUnavailable", err, r.Broken())
	}
	w.store.Restore(good)
	if err := r.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	r.do(t, "after")
}

func TestCallersCheckpointFindsARollback(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	for i := range 5 {
		r.do(t, fmt.Sprint(i))
	}
	at := func(v *View) translog.Checkpoint {
		return translog.Checkpoint{Origin: origin, Size: v.Head.Size, Root: v.Head.Root}
	}
	early := at(r.View())
	old := w.store.Snapshot()
	r.do(t, "more")
	late := at(r.View())
	for name, cp := range map[string]translog.Checkpoint{"none": {}, "early": early, "late": late} {
		if err := r.Contains(t.Context(), cp); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.crash()
	w.store.Restore(old)
	restarted := w.open()
	if err := restarted.Contains(t.Context(), early); err != nil {
		t.Errorf("what is there: %v", err)
	}
	if err := restarted.Contains(t.Context(), late); !errors.Is(err, ErrRolledBack) {
		t.Errorf("what is gone: %v, want ErrRolledBack", err)
	}
	brokenFor(t, w, restarted, "a caller's checkpoint is larger")

	forked := w.open()
	forked.do(t, "another")
	if err := forked.Contains(t.Context(), late); !errors.Is(err, ErrRolledBack) {
		t.Errorf("as large, another root: %v, want ErrRolledBack", err)
	}
	longer := w.open()
	longer.do(t, "another still")
	if err := longer.Contains(t.Context(), late); !errors.Is(err, ErrRolledBack) {
		t.Errorf("smaller, another root: %v, want ErrRolledBack", err)
	}
}

// A caller may know more than this replica, which has not looked yet.
func TestCallersNewerCheckpointMakesTheReplicaLook(t *testing.T) {
	w := newWorld(t)
	r, other := w.open(), w.open()
	gate := r.faulty.Block()
	view := other.do(t, "theirs").View
	gate.Open()
	if err := r.Contains(t.Context(), translog.Checkpoint{Origin: origin, Size: view.Head.Size, Root: view.Head.Root}); err != nil {
		t.Error(err)
	}
	gate = r.faulty.Block()
	view = other.do(t, "theirs too").View
	r.faulty.Crash(1, storetest.Any, storetest.Before)
	gate.Open()
	err := r.Contains(t.Context(), translog.Checkpoint{Origin: origin, Size: view.Head.Size, Root: view.Head.Root})
	if !errors.Is(err, ErrUnavailable) || r.Broken() != nil {
		t.Errorf("the store is away: %v (%v), want ErrUnavailable: nothing contradicts anything", err, r.Broken())
	}
}

func TestOfManyCreatorsOneWins(t *testing.T) {
	w := newWorld(t)
	fresh := storetest.NewMemory()
	errs := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			_, err := Create(t.Context(), w.config(fresh), entry(fmt.Sprint(i)), store.Item{Key: "root"})
			errs <- err
		}()
	}
	won := 0
	for range n {
		err := <-errs
		if err == nil {
			won++
		} else if !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d made the ledger", won)
	}
	if _, err := Create(t.Context(), w.config(storetest.NewMemory()), func(*Draft) error { return nil }); err == nil {
		t.Error("a ledger without an entry was made")
	}
	if _, err := Open(t.Context(), w.config(storetest.NewMemory())); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("opening nothing: %v, want ErrNotFound", err)
	}
	down := storetest.NewFaulty(fresh)
	down.Crash(1, storetest.Any, storetest.Before)
	if _, err := Open(t.Context(), w.config(down)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("opening a store that is away: %v, want ErrUnavailable", err)
	}
}
