// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
)

// Draft is a change that is being put together. Functions given to Do change
// it, may be called several times, and must be quick: the queue waits.
type Draft struct {
	Head       Head      // to change: everything but the log and the time
	Now        time.Time // of the change
	base       *View
	entries    [][]byte
	put        []store.Item
	conditions []store.Condition
	bytes      int
}

func newDraft(base *View, now time.Time) *Draft {
	head := base.Head
	head.Time = max(head.Time, now.Unix())
	return &Draft{Head: head, Now: time.Unix(head.Time, 0).UTC(), base: base}
}

// Append adds an entry to the log and returns its index.
func (d *Draft) Append(e translog.Entry) (int64, error) {
	raw, err := e.Marshal()
	if err != nil {
		return 0, err
	}
	d.entries = append(d.entries, raw)
	d.bytes += len(raw)
	return d.base.Head.Size + int64(len(d.entries)) - 1, nil
}

// Put writes objects in the same step.
func (d *Draft) Put(items ...store.Item) {
	for _, item := range items {
		d.put = append(d.put, item)
		d.bytes += len(item.Key) + len(item.Data)
	}
}

// full reports whether another change might not fit. An append costs a
// handful of files beside the entries themselves.
func (d *Draft) full() bool { return len(d.put) > store.MaxTxnOps/2 || d.bytes > store.MaxTxnBytes/2 }

// job is one call of Do.
type job struct {
	ctx   context.Context
	fn    func(*Draft) error
	first int64 // index of its first entry
	entry []byte
	view  *View
	err   error
	done  chan struct{}
}

// Receipt says where a change is in the log.
type Receipt struct {
	Entry []byte // the change's first log entry, as it was logged
	Index int64
	View  *View // the state right after the change
}

// Proof proves the entry's inclusion in the log of View.
func (r Receipt) Proof(ctx context.Context, l *Ledger) ([]translog.Hash, error) {
	return r.View.Tree.ProveRecord(ctx, l.Storage(), r.Index)
}

// Do makes a change: fn is called with the latest state, and either all of
// what it did happens or nothing. An error of fn is returned as it is. It needs
// Run. fn must append an entry: what is not logged did not happen.
func (l *Ledger) Do(ctx context.Context, fn func(*Draft) error) (Receipt, error) {
	j := &job{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case l.jobs <- j:
	case <-ctx.Done():
		return Receipt{}, fmt.Errorf("changing the ledger: %w", context.Cause(ctx))
	}
	select {
	case <-j.done:
	case <-ctx.Done(): // it may still happen
		return Receipt{}, fmt.Errorf("changing the ledger: %w", context.Cause(ctx))
	}
	if j.err != nil {
		return Receipt{}, j.err
	}
	return Receipt{Entry: j.entry, Index: j.first, View: j.view}, nil
}

// Run makes changes and follows those of other replicas until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	changes := l.cfg.Store.Watch(ctx, HeadKey)
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.abandon(ctx.Err())
			return ctx.Err()
		case j := <-l.jobs:
			l.work(ctx, j)
			continue
		case done := <-l.refreshes:
			done <- l.refresh(ctx)
			continue
		case <-changes:
		case <-tick.C:
		}
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("reading the shared state failed", "err", err)
		}
	}
}

// abandon answers who still waits when the ledger ends.
func (l *Ledger) abandon(err error) {
	for {
		select {
		case j := <-l.jobs:
			l.finish([]*job{j}, nil, err)
		default:
			return
		}
	}
}

// work makes the change and all that wait behind it, in as few commits as
// their sizes allow.
func (l *Ledger) work(ctx context.Context, first *job) {
	waiting := []*job{first}
	for len(waiting) < maxQueue {
		select {
		case j := <-l.jobs:
			waiting = append(waiting, j)
			continue
		default:
		}
		break
	}
	for len(waiting) > 0 {
		taken := l.batch(ctx, waiting)
		waiting = waiting[taken:]
	}
}

// batch commits the first jobs that fit together, and returns how many it
// finished.
func (l *Ledger) batch(ctx context.Context, waiting []*job) int {
	began := time.Now()
	report := Commit{}
	var jobs []*job
	for {
		report.Attempts++
		var d *Draft
		if err := l.Broken(); err != nil {
			return l.finish(waiting, nil, err)
		}
		jobs, d = l.draft(waiting)
		report.Changes, report.Entries = len(jobs), len(d.entries)
		view, err := d.base, error(nil)
		if len(d.entries) > 0 {
			view, err = l.commit(ctx, d.base, d)
		}
		switch {
		case err == nil:
			if view != d.base {
				l.install(view)
				report.Took = time.Since(began)
				l.cfg.Observe(report)
			}
			return l.finish(jobs, view, nil)
		case !errors.Is(err, store.ErrConflict), report.Attempts >= maxAttempts, ctx.Err() != nil:
			report.Took, report.Err = time.Since(began), err
			l.cfg.Observe(report)
			return l.finish(jobs, nil, err)
		}
		if err := l.catchUp(ctx, report.Attempts); err != nil {
			return l.finish(jobs, nil, err)
		}
	}
}

// catchUp reads what another replica did, after a short random pause so that
// two replicas do not race for ever.
func (l *Ledger) catchUp(ctx context.Context, attempt int) error {
	if attempt > 1 {
		select {
		case <-ctx.Done():
		case <-time.After(mathrand.N(time.Duration(min(attempt, 10)) * time.Millisecond)):
		}
	}
	return l.refresh(ctx)
}

// draft calls the functions of as many jobs as fit into one commit. What a
// function that failed did is taken back.
func (l *Ledger) draft(waiting []*job) (jobs []*job, d *Draft) {
	d = newDraft(l.view.Load(), l.cfg.Now())
	for _, j := range waiting {
		if len(jobs) > 0 && d.full() {
			break
		}
		jobs = append(jobs, j)
		before := *d
		j.first, j.err = d.base.Head.Size+int64(len(d.entries)), j.ctx.Err()
		if j.err == nil {
			j.err = j.fn(d)
		}
		if j.err == nil && len(d.entries) == len(before.entries) {
			j.err = errors.New("changing the ledger: the change has no log entry")
		}
		if j.err != nil {
			*d = before
			continue
		}
		j.entry = d.entries[len(before.entries)]
	}
	return jobs, d
}

// finish answers jobs; err is for those whose own function did not fail.
func (l *Ledger) finish(jobs []*job, view *View, err error) int {
	for _, j := range jobs {
		if j.err == nil {
			j.view, j.err = view, err
		}
		close(j.done)
	}
	return len(jobs)
}

// commit writes the draft on top of base. When the store's answer is lost, the
// head is read back: its batch tells whether the change was made.
func (l *Ledger) commit(ctx context.Context, base *View, d *Draft) (*View, error) {
	tree, delta, err := base.Tree.Append(d.entries)
	if err != nil {
		return nil, err
	}
	head := d.Head
	batch := rand.Text()
	head.Size, head.Root = tree.Size(), tree.Root()
	head.Batches = append([]string{batch}, head.Batches[:min(len(head.Batches), maxBatches-1)]...)
	raw, err := head.encode()
	if err != nil {
		return nil, err
	}
	txn := store.Txn{
		If:           append([]store.Condition{{Key: HeadKey, Version: base.version}}, d.conditions...),
		Put:          append([]store.Item{{Key: HeadKey, Data: raw}}, d.put...),
		DeletePrefix: delta.DeletePrefix,
	}
	for _, f := range delta.Put {
		txn.Put = append(txn.Put, store.Item{Key: f.Key, Data: f.Data})
	}
	checkpoint, err := l.sign(tree)
	if err != nil {
		return nil, err
	}
	version, err := l.exchange(ctx, txn, batch)
	if err != nil {
		return nil, err
	}
	return &View{Head: head, Tree: tree, Checkpoint: checkpoint, version: version}, nil
}

// exchange returns version zero for a change that was made and built upon
// before its answer was read.
func (l *Ledger) exchange(ctx context.Context, txn store.Txn, batch string) (store.Version, error) {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	version, err := l.cfg.Store.Commit(limited, txn)
	if err == nil || errors.Is(err, store.ErrConflict) {
		return version, err
	}
	head, version, readErr := l.readHead(ctx)
	switch {
	case readErr != nil:
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case head.Batches[0] == batch:
		return version, nil
	case slices.Contains(head.Batches, batch):
		return 0, nil
	case version != txn.If[0].Version:
		return 0, store.ErrConflict
	}
	return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// files is the log's view of the store.
type files struct{ s store.Store }

func (f files) Get(ctx context.Context, key string) ([]byte, error) {
	v, err := f.s.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return v.Data, err
}

func (f files) Scan(ctx context.Context, prefix string, fn func(key string, data []byte) error) error {
	return f.s.Scan(ctx, prefix, func(key string, v store.Value) error { return fn(key, v.Data) })
}
