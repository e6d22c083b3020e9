// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

func TestFaultyWithoutFaultsConforms(t *testing.T) {
	storetest.Conform(t, func(*testing.T) store.Store { return storetest.NewFaulty(storetest.NewMemory()) })
}

// addOne appends to k and says whether that was reported as done.
func addOne(t *testing.T, f *storetest.Faulty) bool {
	t.Helper()
	v, err := f.Get(t.Context(), "k")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		if !errors.Is(err, storetest.ErrInjected) {
			t.Fatal(err)
		}
		return false
	}
	_, err = f.Commit(t.Context(), store.Txn{
		If:  []store.Condition{{Key: "k", Version: v.Version}},
		Put: []store.Item{{Key: "k", Data: append(v.Data, '1')}},
	})
	if err != nil && !errors.Is(err, storetest.ErrInjected) {
		t.Fatal(err)
	}
	return err == nil
}

func TestFaultyFailsTheOperationItWasTold(t *testing.T) {
	for _, tc := range []struct {
		name   string
		inject func(*storetest.Faulty)
		ok     [3]bool // what addOne reports, three times
		data   string  // what is there in the end
	}{
		{"nothing", func(*storetest.Faulty) {}, [3]bool{true, true, true}, "111"},
		{"read", func(f *storetest.Faulty) { f.Fail(2, storetest.Read, storetest.Before) }, [3]bool{true, false, true}, "11"},
		{"read, answer lost", func(f *storetest.Faulty) { f.Fail(2, storetest.Read, storetest.After) }, [3]bool{true, false, true}, "11"},
		{"write", func(f *storetest.Faulty) { f.Fail(2, storetest.Write, storetest.Before) }, [3]bool{true, false, true}, "11"},
		{"write, answer lost", func(f *storetest.Faulty) { f.Fail(2, storetest.Write, storetest.After) }, [3]bool{true, false, true}, "111"},
		{"fourth of all", func(f *storetest.Faulty) { f.Fail(4, storetest.Any, storetest.After) }, [3]bool{true, false, true}, "111"},
		{"two faults", func(f *storetest.Faulty) {
			f.Fail(1, storetest.Write, storetest.Before)
			f.Fail(2, storetest.Write, storetest.Before)
		}, [3]bool{false, false, true}, "1"},
		{"crash before", func(f *storetest.Faulty) { f.Crash(2, storetest.Write, storetest.Before) }, [3]bool{true, false, false}, "1"},
		{"crash after", func(f *storetest.Faulty) { f.Crash(2, storetest.Write, storetest.After) }, [3]bool{true, false, false}, "11"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := storetest.NewFaulty(storetest.NewMemory())
			tc.inject(f)
			for i, want := range tc.ok {
				if ok := addOne(t, f); ok != want {
					t.Errorf("time %d: done %v, want %v", i+1, ok, want)
				}
			}
			f.Heal()
			if v, err := f.Get(t.Context(), "k"); err != nil || string(v.Data) != tc.data {
				t.Errorf("left is %q, %v; want %q", v.Data, err, tc.data)
			}
		})
	}
}

func TestFaultyCounts(t *testing.T) {
	f := storetest.NewFaulty(storetest.NewMemory())
	f.Crash(3, storetest.Any, storetest.Before)
	addOne(t, f)
	addOne(t, f)
	f.Scan(t.Context(), "", nil)
	for kind, want := range map[storetest.Kind]int{storetest.Any: 4, storetest.Read: 3, storetest.Write: 1} {
		if n := f.Count(kind); n != want {
			t.Errorf("kind %d: %d operations, want %d", kind, n, want)
		}
	}
}

func TestFaultyHoldsOperationsUp(t *testing.T) {
	f := storetest.NewFaulty(storetest.NewMemory())
	gate := f.Block()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Commit(ctx, store.Txn{Put: []store.Item{{Key: "k"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up at the gate: %v", err)
	}
	<-gate.Arrived()
	done := make(chan error, 1)
	go func() {
		_, err := f.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: []byte("x")}}})
		done <- err
	}()
	<-gate.Arrived()
	if _, err := f.Store.Get(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("behind the gate: %v", err)
	}
	gate.Open()
	gate.Open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v, err := f.Get(t.Context(), "k"); err != nil || string(v.Data) != "x" {
		t.Errorf("after the gate: %q, %v", v.Data, err)
	}
}
