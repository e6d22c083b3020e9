// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
)

// hooked calls a function between a commit's effect and the loss of its answer.
type hooked struct {
	store.Store
	lost func()
}

func (h *hooked) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	v, err := h.Store.Commit(ctx, t)
	if h.lost == nil || err != nil {
		return v, err
	}
	lost := h.lost
	h.lost = nil
	lost()
	return 0, errors.New("the answer was lost")
}

// However much others did before a writer finds out what became of its change,
// it is made once.
func TestChangeWhoseAnswerWasLostIsMadeOnce(t *testing.T) {
	for _, others := range []int{0, 1, maxBatches - 1, maxBatches, maxBatches + 1, 300} {
		w := newWorld(t)
		other := w.open()
		h := &hooked{Store: w.store}
		l, err := Open(t.Context(), w.config(h))
		if err != nil {
			t.Fatal(err)
		}
		h.lost = func() {
			for i := range others {
				other.do(t, fmt.Sprintf("other %d", i))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = l.Run(ctx) }()
		receipt, err := l.Do(t.Context(), entry("mine"))
		if err != nil {
			t.Fatalf("after %d changes of others: %v", others, err)
		}
		times, _, now := w.logged()
		if n := times[evidence("mine")]; n != 1 {
			t.Errorf("after %d changes of others: logged %d times", others, n)
		}
		if err := w.proven(receipt, l, now); err != nil {
			t.Errorf("after %d changes of others: %v", others, err)
		}
		if _, err := l.Do(t.Context(), entry("next")); err != nil {
			t.Errorf("the next change after %d of others: %v", others, err)
		}
	}
}

// The same, but the change was not made: others were faster.
func TestChangeThatLostARaceAndItsAnswerIsMadeOnce(t *testing.T) {
	for _, others := range []int{1, maxBatches, maxBatches + 1, 300} {
		w := newWorld(t)
		r, other := w.open(), w.open()
		gate := r.faulty.Block()
		r.faulty.Fail(1, storetest.Write, storetest.After) // a conflict, of which nothing is heard
		done := make(chan Receipt)
		go func() { done <- r.do(t, "mine") }()
		<-gate.Arrived()
		for i := range others {
			other.do(t, fmt.Sprintf("other %d", i))
		}
		gate.Open()
		receipt := <-done
		times, _, now := w.logged()
		if n := times[evidence("mine")]; n != 1 {
			t.Errorf("after %d changes of others: logged %d times", others, n)
		}
		if err := w.proven(receipt, r.Ledger, now); err != nil {
			t.Error(err)
		}
	}
}

func TestStoreThatIsSilentGivesUnavailableInBoundedTimeAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.open()
		defer r.stop()
		r.do(t, "before")
		gate := r.faulty.Block()
		began := time.Now()
		_, err := r.Do(t.Context(), entry("during"))
		if took := time.Since(began); !errors.Is(err, ErrUnavailable) || took > 4*storeTimeout {
			t.Errorf("after %s: %v, want ErrUnavailable soon", took, err)
		}
		time.Sleep(freshFor + readEvery)
		if err := r.Err(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("long after the last answer: %v", err)
		}
		if err := r.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Refresh: %v", err)
		}
		gate.Open()
		time.Sleep(2 * storeTimeout)
		if err := r.Err(); err != nil {
			t.Errorf("after the store is back: %v", err)
		}
		r.do(t, "after")
	})
}

// A read that hangs must not hang the replica: others appended, and their
// entries cannot be read.
func TestLogThatCannotBeReadIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := &hangingLog{Store: w.store}
		l, err := Open(t.Context(), w.config(h))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		h.hang = true
		other := w.open()
		other.do(t, "theirs")
		other.stop()
		if err := l.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Refresh: %v, want ErrUnavailable", err)
		}
		cancel()
		<-ended
	})
}

type hangingLog struct {
	store.Store
	hang bool
}

func (h *hangingLog) Get(ctx context.Context, key string) (store.Value, error) {
	if h.hang && strings.HasPrefix(key, "log/") {
		<-ctx.Done()
		return store.Value{}, ctx.Err()
	}
	return h.Store.Get(ctx, key)
}

func (h *hangingLog) Scan(ctx context.Context, prefix string, fn func(string, store.Value) error) error {
	if h.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Store.Scan(ctx, prefix, fn)
}

// A closed store's watch is a closed channel: to listen to it would be to spin.
func TestClosedStoreIsAskedEveryWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.open()
		defer r.stop()
		w.store.Close()
		time.Sleep(time.Second)
		before := r.faulty.Count(storetest.Any)
		time.Sleep(10 * readEvery)
		if n := r.faulty.Count(storetest.Any) - before; n > 11 {
			t.Errorf("the closed store was asked %d times in %s", n, 10*readEvery)
		}
	})
}

func TestEndedLedgerAnswersAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	gate := r.faulty.Block()
	results := make(chan error, 8)
	for i := range cap(results) {
		go func() {
			_, err := r.Do(context.Background(), entry(fmt.Sprint(i)))
			results <- err
		}()
	}
	<-gate.Arrived()
	r.stop()
	for range cap(results) {
		if err := <-results; err == nil {
			t.Error("a change that could not be made is reported as made")
		}
	}
	if _, err := r.Do(context.Background(), entry("late")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Do after the end: %v", err)
	}
	if err := r.Refresh(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Refresh after the end: %v", err)
	}
}

// One change must not spoil those that happen to be committed with it.
func TestChangesThatDoNotFitTogetherAreMadeOneAfterTheOther(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	big := make([]byte, 400<<10)
	change := func(name string, items ...store.Item) func(*Draft) error {
		return func(d *Draft) error {
			d.Put(items...)
			return entry(name)(d)
		}
	}
	var many []store.Item
	for i := range 40 {
		many = append(many, store.Item{Key: fmt.Sprintf("many/%d", i)})
	}
	same := store.Item{Key: "same", Data: []byte("x")}
	changes := map[string]func(*Draft) error{
		"big 1": change("big 1", store.Item{Key: "big/1", Data: big}), "big 2": change("big 2", store.Item{Key: "big/2", Data: big}),
		"big 3": change("big 3", store.Item{Key: "big/3", Data: big}),
		"many":  change("many", many...), "more": change("more", append([]store.Item{{Key: "more"}}, many...)...),
		"same 1": change("same 1", same), "same 2": change("same 2", same),
	}
	bad := map[string]func(*Draft) error{
		"too big": change("too big", store.Item{Key: "huge", Data: make([]byte, store.MaxTxnBytes)}),
		"nothing": func(*Draft) error { return nil },
		"refused": func(*Draft) error { return errors.New("no") },
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	gate := r.faulty.Block() // so that they all wait together
	start := func(all map[string]func(*Draft) error) {
		for name, fn := range all {
			go func() {
				_, err := r.Do(t.Context(), fn)
				results <- result{name, err}
			}()
		}
	}
	start(map[string]func(*Draft) error{"holds the queue up": entry("holds the queue up")})
	<-gate.Arrived()
	start(changes)
	start(bad)
	for len(r.jobs) < len(changes)+len(bad) {
		time.Sleep(time.Millisecond)
	}
	gate.Open()
	for range len(changes) + len(bad) + 1 {
		got := <-results
		if _, isBad := bad[got.name]; isBad != (got.err != nil) {
			t.Errorf("%s: %v", got.name, got.err)
		}
	}
	times, _, view := w.logged()
	for name := range changes {
		if times[evidence(name)] != 1 {
			t.Errorf("%s is logged %d times", name, times[evidence(name)])
		}
	}
	if got, want := view.Head.DenyList.Version, uint64(2+len(changes)); got != want {
		t.Errorf("%d changes are counted, want %d", got, want)
	}
}

// A full batch must fit whatever the log adds to it.
func TestLargeBatchesFit(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	const n = 3000
	gate := r.faulty.Block()
	errs := make(chan error)
	for i := range n {
		go func() {
			_, err := r.Do(t.Context(), func(d *Draft) error {
				d.Head.DenyList.Version++
				_, err := d.Append(translog.Entry{
					Type: translog.TypeIssuance, Time: d.Now, NotAfter: d.Now, Certificate: evidence(fmt.Sprint(i)), Issuer: evidence("i"), Evidence: evidence("e"), Manifest: evidence("m"), Role: "node",
				})
				return err
			})
			errs <- err
		}()
		if i == 0 {
			<-gate.Arrived()
		}
	}
	for len(r.jobs) < n-1 {
		time.Sleep(time.Millisecond)
	}
	gate.Open()
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if _, _, view := w.logged(); view.Head.Size != n+1 || view.Head.DenyList.Version != n+1 {
		t.Errorf("the log has %d entries and counts %d, want %d", view.Head.Size, view.Head.DenyList.Version, n+1)
	}
	if writes := r.faulty.Count(storetest.Write); writes > 8 {
		t.Errorf("%d commits for %d changes that waited together", writes, n)
	}
}

func TestCallerThatGaveUpChangesNothing(t *testing.T) {
	w := newWorld(t)
	r := w.open()
	gate := r.faulty.Block()
	go func() { _, _ = r.Do(t.Context(), entry("holds the queue up")) }()
	<-gate.Arrived()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Do(ctx, entry("given up")); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v", err)
	}
	gate.Open()
	r.do(t, "after")
	if times, _, _ := w.logged(); times[evidence("given up")] != 0 {
		t.Error("a change was made for a caller that had gone before it began")
	}
}
