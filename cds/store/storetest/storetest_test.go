// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

func TestMemoryConforms(t *testing.T) {
	storetest.Conform(t, func(*testing.T) store.Store { return storetest.NewMemory() })
}

func TestMemoryRestoreIsARollback(t *testing.T) {
	m := storetest.NewMemory()
	put := func(data string) store.Version {
		t.Helper()
		v, err := m.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: []byte(data)}}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	put("old")
	snapshot := m.Snapshot()
	second := put("new")
	changed := m.Watch(t.Context(), "k")
	m.Restore(snapshot)
	<-changed
	if v, err := m.Get(t.Context(), "k"); err != nil || string(v.Data) != "old" {
		t.Errorf("after the rollback: %q, %v", v.Data, err)
	}
	if v := put("forked"); v != second {
		t.Errorf("version %d, want %d again: a rolled back disk has forgotten it", v, second)
	}
	m.Restore(snapshot)
	if v, err := m.Get(t.Context(), "k"); err != nil || string(v.Data) != "old" {
		t.Errorf("the snapshot changed with the store: %q, %v", v.Data, err)
	}
}

func TestMemoryReopenKeepsWhatWasCommitted(t *testing.T) {
	m := storetest.NewMemory()
	v, err := m.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	got, err := m.Reopen().Get(t.Context(), "k")
	if err != nil || string(got.Data) != "x" || got.Version != v {
		t.Errorf("%q in version %d, %v", got.Data, got.Version, err)
	}
}
