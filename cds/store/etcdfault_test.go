// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
)

// hurry keeps requests that must fail short.
const hurry = 500 * time.Millisecond

func fromKey() []clientv3.OpOption {
	return []clientv3.OpOption{clientv3.WithFromKey()}
}

func TestEtcdAnswerThatIsLostLeavesTheOutcomeOpen(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), RequestTimeout: hurry})
	create := store.Txn{If: []store.Condition{{Key: "k"}}, Put: []store.Item{{Key: "k", Data: []byte("mine")}}}

	cluster.Member(0).Mute()
	_, err := s.Commit(t.Context(), create)
	unknown(t, err)
	cluster.Member(0).Heal()

	if v := eventually(t, s, "k"); string(v.Data) != "mine" {
		t.Errorf("read back %q: the lost answer's transaction was applied", v.Data)
	}
	patient := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints()})
	if _, err := patient.Commit(t.Context(), create); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the same again: %v, want ErrConflict", err)
	}
}

func TestEtcdPartitionedAwayFailsAndHeals(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 1)
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), RequestTimeout: hurry})
	put := store.Txn{Put: []store.Item{{Key: "k", Data: []byte("x")}}}
	eventuallyDone(t, s, put)
	cluster.Member(0).Partition()
	_, err := s.Commit(t.Context(), put)
	unknown(t, err)
	_, err = s.Get(t.Context(), "k")
	unknown(t, err)
	err = s.Scan(t.Context(), "", func(string, store.Value) error { return nil })
	unknown(t, err)
	cluster.Member(0).Heal()
	eventually(t, s, "k")
	eventuallyDone(t, s, put)
}

func TestEtcdWithoutQuorumFailsAndRecovers(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 3)
	s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), RequestTimeout: 2 * time.Second})
	eventuallyDone(t, s, store.Txn{Put: []store.Item{{Key: "k", Data: []byte("x")}}})
	for i := range 2 {
		if err := cluster.Member(i).Kill(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: []byte("y")}}})
	unknown(t, err)
	// A read that needs no quorum would still find x here, however old.
	_, err = s.Get(t.Context(), "k")
	unknown(t, err)
	if err := cluster.Member(0).Restart(); err != nil {
		t.Fatal(err)
	}
	if v := eventually(t, s, "k"); string(v.Data) != "x" && string(v.Data) != "y" {
		t.Errorf("read %q", v.Data)
	}
}

// TestEtcdUnderFaultsAppliesNothingTwice lets writers append to one list,
// guarded by its length, while leaders are killed and paused and connections
// broken. What was acknowledged must be there once, what was not at most once.
func TestEtcdUnderFaultsAppliesNothingTwice(t *testing.T) {
	t.Parallel()
	const writers, progress = 3, 20
	cluster := etcdtest.Start(t, 3)
	var acked sync.Map // id of every acknowledged entry
	var count atomic.Int64
	counted := make(chan struct{}, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for w := range writers {
		s := openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints(), RequestTimeout: hurry})
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%d/%d", w, i)
				if appendEntry(ctx, s, id) == nil {
					acked.Store(id, true)
					count.Add(1)
					select {
					case counted <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	// Whatever happened, writing must go on.
	goOn := func(after string) {
		t.Helper()
		timeout := time.After(patience)
		for target := count.Load() + progress; count.Load() < target; {
			select {
			case <-counted:
			case <-timeout:
				t.Fatalf("no progress after %s", after)
			}
		}
	}
	goOn("the start")
	for _, fault := range []struct {
		name     string
		do, undo func(*etcdtest.Member) error
	}{
		{"killing the leader", (*etcdtest.Member).Kill, (*etcdtest.Member).Restart},
		{"pausing the leader", (*etcdtest.Member).Pause, (*etcdtest.Member).Resume},
		{"muting the leader", quietly((*etcdtest.Member).Mute), quietly((*etcdtest.Member).Heal)},
		{"stopping the leader", (*etcdtest.Member).Stop, (*etcdtest.Member).Restart},
		{"disconnecting from the leader", quietly((*etcdtest.Member).Disconnect), quietly((*etcdtest.Member).Heal)},
	} {
		leader, err := cluster.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := cluster.Member(leader)
		if err := fault.do(m); err != nil {
			t.Fatalf("%s: %v", fault.name, err)
		}
		goOn(fault.name)
		if err := fault.undo(m); err != nil {
			t.Fatalf("undoing %s: %v", fault.name, err)
		}
		goOn("undoing " + fault.name)
	}
	stop()
	wg.Wait()
	checkList(t, openEtcd(t, store.EtcdConfig{Endpoints: cluster.Endpoints()}), &acked)
}

func quietly(f func(*etcdtest.Member)) func(*etcdtest.Member) error {
	return func(m *etcdtest.Member) error {
		f(m)
		return nil
	}
}

// appendEntry tries once.
func appendEntry(ctx context.Context, s store.Store, id string) error {
	v, err := s.Get(ctx, "length")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	n, _ := strconv.Atoi(string(v.Data)) // none yet is none
	_, err = s.Commit(ctx, store.Txn{
		If: []store.Condition{{Key: "length", Version: v.Version}},
		Put: []store.Item{
			{Key: "length", Data: []byte(strconv.Itoa(n + 1))},
			{Key: fmt.Sprintf("entry/%08d", n), Data: []byte(id)},
		},
	})
	return err
}

func checkList(t *testing.T, s store.Store, acked *sync.Map) {
	t.Helper()
	seen := make(map[string]bool)
	err := s.Scan(t.Context(), "entry/", func(key string, v store.Value) error {
		if want := fmt.Sprintf("entry/%08d", len(seen)); key != want {
			return fmt.Errorf("found %s, want %s", key, want)
		}
		if seen[string(v.Data)] {
			return fmt.Errorf("%s is there twice", v.Data)
		}
		seen[string(v.Data)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), "length"); err != nil || string(v.Data) != strconv.Itoa(len(seen)) {
		t.Errorf("length %s, %v; want %d", v.Data, err, len(seen))
	}
	acked.Range(func(id, _ any) bool {
		if !seen[id.(string)] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
		return true
	})
}

// eventually reads a key that is there, as soon as the store answers again.
func eventually(t *testing.T, s store.Store, key string) store.Value {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		v, err := s.Get(ctx, key)
		if err == nil {
			return v
		}
		if errors.Is(err, store.ErrNotFound) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// eventuallyDone repeats a transaction that may be applied any number of times
// until the store answers.
func eventuallyDone(t *testing.T, s store.Store, txn store.Txn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, err := s.Commit(ctx, txn)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
