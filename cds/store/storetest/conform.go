// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
)

// patience ends a test that waits for something that does not come.
const patience = time.Minute

// Conform checks what the interface promises. Open returns an empty store; the
// suite closes it.
func Conform(t *testing.T, open func(t *testing.T) store.Store) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"what was written is read", readsWrites},
		{"values belong to the caller", copies},
		{"versions never return", versions},
		{"a condition that does not hold changes nothing", conditions},
		{"everything of a transaction or nothing", atomic},
		{"deletes", deletes},
		{"scan is ascending and stays under its prefix", scans},
		{"scan survives changes by its function", scanAndWrite},
		{"the same transactions are refused", refusals},
		{"transactions up to the limits are taken", limits},
		{"of two writers one wins", race},
		{"watch signals changes", watches},
		{"watch ends with its context and the store", watchEnds},
		{"nothing works after the end", ended},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { s.Close() })
			tc.test(t, s)
		})
	}
}

func readsWrites(t *testing.T, s store.Store) {
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a missing key: %v, want ErrNotFound", err)
	}
	binary := "b/\x00\xff\n"
	version := commit(t, s, store.Txn{Put: []store.Item{{Key: "a", Data: []byte("1")}, {Key: binary, Data: nil}}})
	if version <= 0 {
		t.Errorf("version %d, want a positive one", version)
	}
	want(t, s, "a", "1", version)
	want(t, s, binary, "", version)
	for _, key := range []string{"", "b", "b/", "aa", binary + "\x00"} {
		if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v, want ErrNotFound", key, err)
		}
	}
}

func copies(t *testing.T, s store.Store) {
	data := []byte("good")
	version := commit(t, s, store.Txn{Put: []store.Item{{Key: "k", Data: data}}})
	if string(data) != "good" {
		t.Errorf("Commit changed the caller's data to %q", data)
	}
	copy(data, "evil")
	v, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	copy(v.Data, "evil")
	want(t, s, "k", "good", version)
}

func versions(t *testing.T, s store.Store) {
	seen := make(map[store.Version]bool)
	for range 3 {
		for range 3 {
			v := put(t, s, "k", "same")
			if seen[v] {
				t.Fatalf("version %d was given out twice", v)
			}
			seen[v] = true
		}
		put(t, s, "other", "same")
		commit(t, s, store.Txn{Delete: []string{"k"}})
	}
	old := put(t, s, "k", "same")
	put(t, s, "other", "changes")
	want(t, s, "k", "same", old)
}

func conditions(t *testing.T, s store.Store) {
	old := put(t, s, "k", "old")
	now := put(t, s, "k", "now")
	for _, tc := range []struct {
		name string
		cond []store.Condition
	}{
		{"must not exist, but does", []store.Condition{{Key: "k"}}},
		{"an earlier version", []store.Condition{{Key: "k", Version: old}}},
		{"a later version", []store.Condition{{Key: "k", Version: now + 1}}},
		{"a negative version", []store.Condition{{Key: "k", Version: -1}}},
		{"a version of a missing key", []store.Condition{{Key: "none", Version: now}}},
		{"only the last of several fails", []store.Condition{{Key: "k", Version: now}, {Key: "none"}, {Key: "k"}}},
		{"the version of a longer key", []store.Condition{{Key: "k/", Version: now}}},
	} {
		version, err := s.Commit(t.Context(), store.Txn{
			If:     tc.cond,
			Put:    []store.Item{{Key: "new", Data: []byte("x")}},
			Delete: []string{"k"},
		})
		if !errors.Is(err, store.ErrConflict) || version != 0 {
			t.Errorf("%s: version %d, %v; want ErrConflict", tc.name, version, err)
		}
		want(t, s, "k", "now", now)
		if _, err := s.Get(t.Context(), "new"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: a refused transaction was applied: %v", tc.name, err)
		}
	}
	hold := []store.Condition{{Key: "k", Version: now}, {Key: "none"}}
	if v := commit(t, s, store.Txn{If: hold}); v != 0 {
		t.Errorf("nothing was written, but it has version %d", v)
	}
	v := commit(t, s, store.Txn{If: hold, Put: []store.Item{{Key: "k", Data: []byte("next")}}})
	want(t, s, "k", "next", v)
}

func atomic(t *testing.T, s store.Store) {
	commit(t, s, store.Txn{Put: []store.Item{{Key: "d", Data: []byte("x")}, {Key: "p/1"}, {Key: "p/2"}}})
	v := commit(t, s, store.Txn{
		If:           []store.Condition{{Key: "a"}},
		Put:          []store.Item{{Key: "a", Data: []byte("1")}, {Key: "b", Data: []byte("2")}},
		Delete:       []string{"d", "never"},
		DeletePrefix: []string{"p/", "p/1"},
	})
	want(t, s, "a", "1", v)
	want(t, s, "b", "2", v)
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("left are %q, want a and b", got)
	}
}

func deletes(t *testing.T, s store.Store) {
	for _, k := range []string{"a", "p", "p/", "p/1", "p/2/3", "p0", "p\xff", "p\xff\xff", "q"} {
		put(t, s, k, "x")
	}
	if v := commit(t, s, store.Txn{Delete: []string{"a", "a"}, DeletePrefix: []string{"p/"}}); v != 0 {
		t.Errorf("nothing was written, but it has version %d", v)
	}
	if got, want := keys(t, s, ""), []string{"p", "p0", "p\xff", "p\xff\xff", "q"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	commit(t, s, store.Txn{DeletePrefix: []string{"p\xff"}})
	if got, want := keys(t, s, ""), []string{"p", "p0", "q"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}

func scans(t *testing.T, s store.Store) {
	const n = 1000 // several pages
	var all []string
	for i := 0; i < n; i += store.MaxTxnOps {
		var txn store.Txn
		for j := i; j < i+store.MaxTxnOps; j++ {
			key := "many/" + strconv.Itoa(j)
			all = append(all, key)
			txn.Put = append(txn.Put, store.Item{Key: key, Data: []byte(key)})
		}
		commit(t, s, txn)
	}
	put(t, s, "man", "")
	put(t, s, "many", "")
	put(t, s, "many0", "")
	slices.Sort(all)
	var got []string
	err := s.Scan(t.Context(), "many/", func(key string, v store.Value) error {
		if string(v.Data) != key || v.Version <= 0 {
			t.Errorf("%q holds %q in version %d", key, v.Data, v.Version)
		}
		got = append(got, key)
		return nil
	})
	if err != nil || !slices.Equal(got, all) {
		t.Errorf("%d keys, %v; want %d, each once and in order", len(got), err, len(all))
	}
	if got := keys(t, s, ""); len(got) != n+3 || !slices.IsSorted(got) {
		t.Errorf("everything is %d keys, want %d in order", len(got), n+3)
	}
	if got := keys(t, s, "none/"); len(got) != 0 {
		t.Errorf("under a prefix without keys: %q", got)
	}
	stop, calls := errors.New("enough"), 0
	err = s.Scan(t.Context(), "many/", func(string, store.Value) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("stopped after %d calls with %v, want 1 and its error", calls, err)
	}
}

func scanAndWrite(t *testing.T, s store.Store) {
	const n = 600
	for i := 0; i < n; i += store.MaxTxnOps {
		var txn store.Txn
		for j := i; j < i+store.MaxTxnOps; j++ {
			txn.Put = append(txn.Put, store.Item{Key: fmt.Sprintf("k/%04d", j)})
		}
		commit(t, s, txn)
	}
	last, seen := "", 0
	err := s.Scan(t.Context(), "k/", func(key string, _ store.Value) error {
		if key <= last {
			t.Errorf("%q comes after %q", key, last)
		}
		last = key
		seen++
		_, err := s.Commit(t.Context(), store.Txn{Delete: []string{key}, Put: []store.Item{{Key: "done/" + key}}})
		return err
	})
	if err != nil || seen != n {
		t.Errorf("%d keys, %v; want %d", seen, err, n)
	}
	if left, done := keys(t, s, "k/"), keys(t, s, "done/"); len(left) != 0 || len(done) != n {
		t.Errorf("%d keys are left and %d done, want 0 and %d", len(left), len(done), n)
	}
}

func refusals(t *testing.T, s store.Store) {
	many := make([]store.Item, store.MaxTxnOps+1)
	conds := make([]store.Condition, store.MaxTxnOps+1)
	for i := range many {
		many[i].Key, conds[i].Key = strconv.Itoa(i), strconv.Itoa(i)
	}
	for _, tc := range []struct {
		name string
		txn  store.Txn
	}{
		{"written twice", store.Txn{Put: []store.Item{{Key: "a"}, {Key: "a"}}}},
		{"written and deleted", store.Txn{Put: []store.Item{{Key: "a"}}, Delete: []string{"a"}}},
		{"written under a deleted prefix", store.Txn{Put: []store.Item{{Key: "a/b"}}, DeletePrefix: []string{"a/"}}},
		{"written as a deleted prefix", store.Txn{Put: []store.Item{{Key: "a"}}, DeletePrefix: []string{"a"}}},
		{"empty key", store.Txn{Put: []store.Item{{Key: ""}}}},
		{"empty key deleted", store.Txn{Delete: []string{""}}},
		{"everything deleted", store.Txn{DeletePrefix: []string{""}}},
		{"empty key in a condition", store.Txn{If: []store.Condition{{}}, Put: []store.Item{{Key: "a"}}}},
		{"long key", store.Txn{Put: []store.Item{{Key: strings.Repeat("k", store.MaxKeyLen+1)}}}},
		{"too many changes", store.Txn{Put: many}},
		{"too many changes together", store.Txn{Put: many[:50], Delete: []string{"x"}, DeletePrefix: make([]string, 50)}},
		{"too many conditions", store.Txn{If: conds, Put: []store.Item{{Key: "a"}}}},
		{"too large", store.Txn{Put: []store.Item{{Key: "a", Data: make([]byte, store.MaxTxnBytes)}}}},
		{"too large together", store.Txn{Put: []store.Item{
			{Key: "a", Data: make([]byte, store.MaxTxnBytes/2)},
			{Key: "b", Data: make([]byte, store.MaxTxnBytes/2)},
		}}},
	} {
		if v, err := s.Commit(t.Context(), tc.txn); !errors.Is(err, store.ErrInvalid) || v != 0 {
			t.Errorf("%s: version %d, %v; want ErrInvalid", tc.name, v, err)
		}
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("refused transactions left %q", got)
	}
}

func limits(t *testing.T, s store.Store) {
	var txn store.Txn
	for i := range store.MaxTxnOps {
		key := fmt.Sprintf("%0*d", store.MaxKeyLen, i)
		txn.If = append(txn.If, store.Condition{Key: key})
		txn.Put = append(txn.Put, store.Item{Key: key, Data: []byte("x")})
	}
	v := commit(t, s, txn)
	want(t, s, txn.Put[store.MaxTxnOps-1].Key, "x", v)
	large := bytes.Repeat([]byte("x"), store.MaxTxnBytes-len("large")-store.SealOverhead)
	v = put(t, s, "large", string(large))
	want(t, s, "large", string(large), v)
	if got := keys(t, s, "l"); !slices.Equal(got, []string{"large"}) {
		t.Errorf("listed %q, want large", got)
	}
}

func race(t *testing.T, s store.Store) {
	const writers, rounds = 4, 25
	put(t, s, "n", "0")
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if err := increment(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	v, err := s.Get(t.Context(), "n")
	if err != nil || string(v.Data) != strconv.Itoa(writers*rounds) {
		t.Errorf("counted %s, %v; want %d", v.Data, err, writers*rounds)
	}
}

// increment adds one to n, however often it loses.
func increment(ctx context.Context, s store.Store) error {
	for {
		v, err := s.Get(ctx, "n")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(v.Data))
		if err != nil {
			return err
		}
		_, err = s.Commit(ctx, store.Txn{
			If:  []store.Condition{{Key: "n", Version: v.Version}},
			Put: []store.Item{{Key: "n", Data: []byte(strconv.Itoa(n + 1))}},
		})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func ended(t *testing.T, s store.Store) {
	put(t, s, "k", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(ctx context.Context, when string) {
		t.Helper()
		if _, err := s.Get(ctx, "k"); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get %s: %v", when, err)
		}
		if err := s.Scan(ctx, "", func(string, store.Value) error { return nil }); err == nil {
			t.Errorf("Scan %s did not fail", when)
		}
		if _, err := s.Commit(ctx, store.Txn{Put: []store.Item{{Key: "k"}}}); err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("Commit %s: %v", when, err)
		}
	}
	check(ctx, "after its context ended")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(t.Context(), "after Close")
}

func put(t *testing.T, s store.Store, key, data string) store.Version {
	t.Helper()
	return commit(t, s, store.Txn{Put: []store.Item{{Key: key, Data: []byte(data)}}})
}

func commit(t *testing.T, s store.Store, txn store.Txn) store.Version {
	t.Helper()
	v, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func want(t *testing.T, s store.Store, key, data string, version store.Version) {
	t.Helper()
	v, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if string(v.Data) != data || v.Version != version {
		t.Errorf("%.64q holds %.64q in version %d, want %.64q in version %d", key, v.Data, v.Version, data, version)
	}
}

func keys(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	var keys []string
	err := s.Scan(t.Context(), prefix, func(key string, _ store.Value) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
