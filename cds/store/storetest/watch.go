// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
)

func watches(t *testing.T, s store.Store) {
	put(t, s, "k", "0")
	first, second := s.Watch(t.Context(), "k"), s.Watch(t.Context(), "k")
	unread := s.Watch(t.Context(), "k") // must hold up nobody
	for i, txn := range []store.Txn{
		{Put: []store.Item{{Key: "k", Data: []byte("1")}}},
		{Delete: []string{"k"}},
		{Put: []store.Item{{Key: "k", Data: []byte("2")}, {Key: "other"}}},
		{DeletePrefix: []string{"k"}},
	} {
		commit(t, s, txn)
		data := strconv.Itoa(i/2 + 1)
		if i%2 == 1 {
			data = ""
		}
		await(t, s, first, "k", data)
		await(t, s, second, "k", data)
	}
	if len(unread) != 1 || cap(unread) != 1 {
		t.Errorf("%d of %d signals are kept for who does not read, want 1 of 1", len(unread), cap(unread))
	}
}

// await follows a watch as its users do: read, and after each signal again.
// Missing keys count as empty.
func await(t *testing.T, s store.Store, changed <-chan struct{}, key, data string) {
	t.Helper()
	timeout := time.After(patience)
	for signalled := false; ; signalled = true {
		if v, _ := s.Get(t.Context(), key); signalled && string(v.Data) == data {
			return
		}
		select {
		case _, ok := <-changed:
			if !ok {
				t.Fatal("the watch ended")
			}
		case <-timeout:
			t.Fatalf("no signal after %q became %q", key, data)
		}
	}
}

func watchEnds(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	mine, others := s.Watch(ctx, "k"), s.Watch(t.Context(), "k")
	cancel()
	awaitEnd(t, mine)
	put(t, s, "k", "x")
	await(t, s, others, "k", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, others)
	awaitEnd(t, s.Watch(t.Context(), "k"))
}

func awaitEnd(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-timeout:
			t.Fatal("the watch did not end")
		}
	}
}
