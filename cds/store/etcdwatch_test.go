// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
)

// watched is a watch of one key and a client that no proxy holds up, which
// changes it.
type watched struct {
	t       *testing.T
	s       store.Store
	changed <-chan struct{}
	client  *clientv3.Client
	n       int
}

func watch(t *testing.T, cluster *etcdtest.Cluster) *watched {
	t.Helper()
	client, err := cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), RequestTimeout: hurry})
	w := &watched{t: t, s: s, changed: s.Watch(t.Context(), "k"), client: client}
	w.await(w.change())
	return w
}

// change writes the key and returns its new value.
func (w *watched) change() (data string) {
	w.t.Helper()
	w.n++
	data = fmt.Sprint(w.n)
	if _, err := w.client.Put(w.t.Context(), "/test/k", data); err != nil {
		w.t.Fatal(err)
	}
	return data
}

// await follows the watch until it led to the value: signals are all that
// makes it read.
func (w *watched) await(data string) {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-w.changed:
			if !ok {
				w.t.Fatal("the watch ended")
			}
		case <-timeout:
			w.t.Fatalf("no signal that the key is %s now", data)
		}
		if v := eventually(w.t, w.s, "k"); string(v.Data) == data {
			return
		}
	}
}

func TestEtcdWatchSurvivesBrokenConnections(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	w := watch(t, cluster)
	for range 3 {
		cluster.Member(0).Disconnect()
		w.await(w.change())
	}
}

func TestEtcdWatchSurvivesARestart(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	w := watch(t, cluster)
	for range 2 {
		if err := cluster.Member(0).Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Member(0).Restart(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Member(0).Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.await(w.change())
	}
}

func TestEtcdWatchSurvivesCompactionOfWhatItMissed(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	w := watch(t, cluster)
	cluster.Member(0).Partition()
	w.change()
	last := w.change()
	resp, err := w.client.Get(t.Context(), "/test/k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	cluster.Member(0).Disconnect() // else the held up answers would arrive
	cluster.Member(0).Heal()
	w.await(last)
	w.await(w.change())
}

// Whichever member the watch is at, it is silent once, and only the keep-alive
// tells.
func TestEtcdWatchLeavesASilentMember(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 3)
	w := watch(t, cluster)
	for i := range cluster.Members() {
		cluster.Member(i).Partition()
		w.await(w.change())
		cluster.Member(i).Heal()
	}
}

func TestEtcdWatchIsRenewed(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints()})
	store.SetWatchLife(s, 50*time.Millisecond)
	changed := s.Watch(t.Context(), "k")
	timeout := time.After(patience)
	for range 3 {
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("a watch that hears nothing must be set up again")
		}
	}
}
