// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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

// fits reports whether the change can be one transaction. The log's own files
// take some of it: a bundle that becomes full is written again as a whole, and
// so are tiles.
func (d *Draft) fits() bool {
	const ops, bytes = store.MaxTxnOps - 36, store.MaxTxnBytes - 256<<10
	return len(d.put)+len(d.conditions) <= ops && d.bytes+len(d.put)*store.SealOverhead <= bytes
}

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
	case <-l.ended:
		return Receipt{}, errEnded
	}
	select {
	case <-j.done:
	case <-ctx.Done(): // it may still happen
		return Receipt{}, fmt.Errorf("changing the ledger: %w", context.Cause(ctx))
	case <-l.ended: // it was answered, or never will be
		select {
		case <-j.done:
		default:
			return Receipt{}, errEnded
		}
	}
	if j.err != nil {
		return Receipt{}, j.err
	}
	return Receipt{Entry: j.entry, Index: j.first, View: j.view}, nil
}

// errEnded answers whoever comes after Run has returned.
var errEnded = fmt.Errorf("%w: the ledger has ended", ErrUnavailable)

// Run makes changes and follows those of other replicas until ctx ends. It is
// called once.
func (l *Ledger) Run(ctx context.Context) error {
	defer close(l.ended)
	changes := l.cfg.Store.Watch(ctx, HeadKey)
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case j := <-l.jobs:
			l.work(ctx, j)
			continue
		case done := <-l.refreshes:
			done <- l.refresh(ctx)
			continue
		case _, more := <-changes:
			if !more { // the store was closed: reading says so, every while
				changes = nil
				continue
			}
		case <-tick.C:
		}
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("reading the shared state failed", "err", err)
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
			if errors.Is(err, store.ErrConflict) {
				err = fmt.Errorf("%w: other replicas were faster %d times", ErrUnavailable, report.Attempts)
			}
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
	written := map[string]bool{}
	for _, j := range waiting {
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
			jobs = append(jobs, j)
			continue
		}
		again := slices.ContainsFunc(d.put[len(before.put):], func(i store.Item) bool { return written[i.Key] })
		if len(before.entries) > 0 && (again || !d.fits()) {
			*d = before
			return jobs, d // it begins the next commit
		}
		for _, item := range d.put[len(before.put):] {
			written[item.Key] = true
		}
		j.entry = d.entries[len(before.entries)]
		jobs = append(jobs, j)
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
	version, err := l.exchange(ctx, base, tree, txn, batch)
	if err != nil {
		return nil, err
	}
	return &View{Head: head, Tree: tree, Checkpoint: checkpoint, version: version}, nil
}

// unknownVersion is that of a change that others built upon before its answer
// was read. No condition with it holds, so that the head is read first.
const unknownVersion store.Version = -1

// exchange commits. When the answer is lost, the head tells what became of it.
func (l *Ledger) exchange(ctx context.Context, base *View, tree *translog.Tree, txn store.Txn, batch string) (store.Version, error) {
	version, err := l.cfg.Store.Commit(ctx, txn)
	if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrInvalid) {
		return version, err
	}
	head, version, readErr := l.readHead(ctx)
	switch {
	case readErr != nil, version == base.version:
		return 0, unavailable(err) // it may still be made, but on this base alone
	case head.Batches[0] == batch:
		return version, nil
	case slices.Contains(head.Batches, batch):
		return unknownVersion, nil
	case head.recalls(base.Head):
		return 0, store.ErrConflict
	}
	// More has happened since than the head remembers: is the log an extension
	// of what this change would have made of it?
	_, extendErr := tree.Extend(ctx, files{l.cfg.Store}, head.Size, head.Root)
	switch {
	case errors.Is(extendErr, translog.ErrNotExtension):
		return 0, store.ErrConflict
	case extendErr != nil:
		return 0, unavailable(err)
	}
	return unknownVersion, nil
}
