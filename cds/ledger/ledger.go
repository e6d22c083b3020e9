// SPDX-License-Identifier: Apache-2.0

// Package ledger is the memory that all replicas of a CDS share, and it only
// grows: every change is one compare-and-swap of a small head together with
// the log entries that record it, and a head that is not an extension of the
// one seen before stops the replica instead of being believed.
//
// The store below is outside the trust boundary. What it can still do is
// nothing at all, which callers see as ErrUnavailable.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
)

var (
	// ErrRolledBack says that the store, or a caller's checkpoint, contradicts
	// what this replica saw before. It lasts until somebody has looked.
	ErrRolledBack = errors.New("the store was rolled back or forked")
	// ErrUnavailable says that the store does not answer. The change may have
	// been made all the same.
	ErrUnavailable = errors.New("the store does not answer")
	// ErrInUse says that a new ledger was to be made where one exists.
	ErrInUse = errors.New("the store is in use")
)

const (
	// readEvery is how often the head is read when nothing says it changed.
	readEvery = 3 * time.Second
	// freshFor is how long a read of the head counts as being in touch.
	freshFor = 10 * time.Second
	// maxQueue bounds the changes that wait for a commit.
	maxQueue = 4096
	// maxAttempts bounds how often one batch is tried against other replicas.
	maxAttempts = 64
)

// Config is what a ledger is given; everything is required but Observe.
type Config struct {
	Store  store.Store // sealed: what comes out of it is authentic, if perhaps old
	Origin string      // of the log
	Signer note.Signer // of its checkpoints
	Now    func() time.Time
	Log    *slog.Logger
	// Observe is told about every commit, for metrics.
	Observe func(Commit)
}

// Commit describes one exchange with the store that changed the head.
type Commit struct {
	Took     time.Duration
	Changes  int // that were made together
	Entries  int
	Attempts int // 1 if no other replica was faster
	Err      error
}

// View is the shared state at one moment. It does not change.
type View struct {
	Head       Head
	Tree       *translog.Tree
	Checkpoint []byte // signed note
	version    store.Version
}

// Ledger is one replica's access to the shared state.
type Ledger struct {
	cfg  Config
	jobs chan *job

	refreshes chan chan error
	ended     chan struct{} // closed when Run has returned

	view atomic.Pointer[View]
	born time.Time    // what read counts from, by the monotonic clock
	read atomic.Int64 // nanoseconds from born to the last successful exchange

	mu      sync.Mutex
	changed chan struct{} // closed when view is replaced
	broken  error         // ErrRolledBack, for good
}

// Open reads the shared state. A store without one gives store.ErrNotFound.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	l, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	head, version, err := l.readHead(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	tree, err := translog.Load(ctx, files{cfg.Store}, head.Size, head.Root)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return l, l.adopt(head, tree, version)
}

// Create makes the first state. fn must append at least one entry; also
// contains what else is written, and only if it is not there yet. Somebody
// else's ledger gives ErrInUse.
func Create(ctx context.Context, cfg Config, fn func(*Draft) error, also ...store.Item) (*Ledger, error) {
	l, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	empty := &View{Tree: translog.NewTree()}
	d := newDraft(empty, cfg.Now())
	if err := fn(d); err != nil {
		return nil, fmt.Errorf("creating the ledger: %w", err)
	}
	if len(d.entries) == 0 {
		return nil, errors.New("creating the ledger: it has no log entry")
	}
	d.Put(also...)
	for _, item := range also {
		d.conditions = append(d.conditions, store.Condition{Key: item.Key})
	}
	view, err := l.commit(ctx, empty, d)
	if errors.Is(err, store.ErrConflict) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("creating the ledger: %w", err)
	}
	l.install(view)
	return l, nil
}

func prepare(cfg Config) (*Ledger, error) {
	if cfg.Store == nil || cfg.Origin == "" || cfg.Signer == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the ledger: the configuration lacks a part")
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Commit) {}
	}
	cfg.Store = Reach(cfg.Store)
	return &Ledger{cfg: cfg, born: time.Now(), jobs: make(chan *job, maxQueue), refreshes: make(chan chan error), ended: make(chan struct{}), changed: make(chan struct{})}, nil
}

// View returns the state as this replica last saw it.
func (l *Ledger) View() *View { return l.view.Load() }

// Watch returns the state and a channel that is closed when it is no longer
// the latest.
func (l *Ledger) Watch() (*View, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view.Load(), l.changed
}

// Err says why nothing can be changed now, or nil: the store contradicted
// itself, or has not answered for a while.
func (l *Ledger) Err() error {
	if err := l.Broken(); err != nil {
		return err
	}
	if age := l.Age(); age > freshFor {
		return fmt.Errorf("%w: the head was last read %s ago", ErrUnavailable, age.Round(time.Second))
	}
	return nil
}

// Broken is ErrRolledBack once the store contradicted itself.
func (l *Ledger) Broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Age is how long ago the store last answered.
func (l *Ledger) Age() time.Duration { return time.Since(l.born) - time.Duration(l.read.Load()) }

// Storage gives the log's files to those who prove from a View's Tree.
func (l *Ledger) Storage() translog.Storage { return files{l.cfg.Store} }

func (l *Ledger) readHead(ctx context.Context) (Head, store.Version, error) {
	v, err := l.cfg.Store.Get(ctx, HeadKey)
	if err != nil {
		return Head{}, 0, err
	}
	head, err := decodeHead(v.Data)
	return head, v.Version, err
}

// refresh reads the head and adopts it if another replica changed it.
func (l *Ledger) refresh(ctx context.Context) error {
	if err := l.Broken(); err != nil {
		return err // nothing that the store says now is followed
	}
	head, version, err := l.readHead(ctx)
	now := l.view.Load()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return l.breakdown(fmt.Errorf("%w: the head is gone", ErrRolledBack))
	case err != nil:
		return unavailable(err)
	case head.same(now.Head):
		if version != now.version { // it was not known, or the store was made anew
			l.install(&View{Head: now.Head, Tree: now.Tree, Checkpoint: now.Checkpoint, version: version})
		}
		l.touch()
		return nil
	}
	if err := head.follows(now.Head); err != nil {
		return l.breakdown(err)
	}
	tree, err := now.Tree.Extend(ctx, files{l.cfg.Store}, head.Size, head.Root)
	switch {
	case errors.Is(err, translog.ErrNotExtension):
		return l.breakdown(fmt.Errorf("%w: %w", ErrRolledBack, err))
	case err != nil:
		return unavailable(err)
	}
	return l.adopt(head, tree, version)
}

func (l *Ledger) adopt(head Head, tree *translog.Tree, version store.Version) error {
	checkpoint, err := l.sign(tree)
	if err != nil {
		return err
	}
	l.install(&View{Head: head, Tree: tree, Checkpoint: checkpoint, version: version})
	return nil
}

func (l *Ledger) sign(tree *translog.Tree) ([]byte, error) {
	checkpoint, err := translog.Sign(translog.Checkpoint{Origin: l.cfg.Origin, Size: tree.Size(), Root: tree.Root()}, l.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("signing the checkpoint: %w", err)
	}
	return checkpoint, nil
}

func (l *Ledger) install(v *View) {
	l.touch()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.Store(v)
	close(l.changed)
	l.changed = make(chan struct{})
}

// touch notes that the store answered. The machine's wall clock, which the host
// may turn back, must not make an old answer young.
func (l *Ledger) touch() { l.read.Store(int64(time.Since(l.born))) }

// breakdown stops this replica for good.
func (l *Ledger) breakdown(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
		l.cfg.Log.Error("stopping: this replica changes and issues nothing any more", "err", err,
			"remedy", "find out who changed the store; restart this replica when the store is the newest again")
	}
	return l.broken
}
