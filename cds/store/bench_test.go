// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

// benchCommit is a compare-and-swap of a head with two objects, 1 KB in all.
func benchCommit(b *testing.B, s store.Store) {
	b.Helper()
	var version store.Version
	for b.Loop() {
		v, err := s.Commit(b.Context(), store.Txn{
			If: []store.Condition{{Key: "head", Version: version}},
			Put: []store.Item{
				{Key: "head", Data: make([]byte, 256)},
				{Key: "tile", Data: make([]byte, 256)},
				{Key: "entry", Data: make([]byte, 512)},
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		version = v
	}
}

func BenchmarkCommitFile(b *testing.B) {
	benchCommit(b, openFile(b, filepath.Join(b.TempDir(), "store")))
}

func BenchmarkCommitEtcd1(b *testing.B) { benchEtcd(b, 1) }

func BenchmarkCommitEtcd3(b *testing.B) { benchEtcd(b, 3) }

func benchEtcd(b *testing.B, members int) {
	cluster := etcdtest.Start(b, members)
	benchCommit(b, openEtcd(b, store.EtcdConfig{Endpoints: cluster.Endpoints()}))
}

// The difference of these two is what sealing costs.
func BenchmarkCommitMemory(b *testing.B) { benchCommit(b, storetest.NewMemory()) }

func BenchmarkCommitMemorySealed(b *testing.B) { benchCommit(b, seal(b, storetest.NewMemory(), 1)) }

func BenchmarkGetFile(b *testing.B) { benchGet(b, openFile(b, filepath.Join(b.TempDir(), "store"))) }

func BenchmarkGetEtcd1(b *testing.B) {
	cluster := etcdtest.Start(b, 1)
	benchGet(b, openEtcd(b, store.EtcdConfig{Endpoints: cluster.Endpoints()}))
}

func BenchmarkGetMemorySealed(b *testing.B) { benchGet(b, seal(b, storetest.NewMemory(), 1)) }

func benchGet(b *testing.B, s store.Store) {
	b.Helper()
	if _, err := s.Commit(b.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: make([]byte, 1024)}}}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
	}
}
