// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"container/list"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// StoreConfig is what a Store works with. All fields but Dir are required.
type StoreConfig struct {
	Dir          string // empty: memory only
	Upstream     Upstream
	Now          func() time.Time
	Log          *slog.Logger
	MaxEntries   int
	MaxBytes     int           // of contents
	RefreshAfter time.Duration // age at which CRLs, TCB info and QE identity are asked for again; vendors publish before the next update
}

// DefaultStoreConfig keeps up to 4096 things in memory and nothing on disk.
func DefaultStoreConfig(up Upstream, log *slog.Logger) StoreConfig {
	return StoreConfig{Upstream: up, Now: time.Now, Log: log, MaxEntries: 4096, MaxBytes: 32 << 20, RefreshAfter: 24 * time.Hour}
}

// Store keeps what its upstream answered, in memory and in a folder. It asks
// for one thing once, however many callers want it. It is safe for concurrent
// use.
type Store struct {
	config  StoreConfig
	flights singleflight.Group
	disk    *disk // nil for memory only

	mu      sync.Mutex
	items   map[Request]*list.Element
	order   *list.List // of Item, most recently used first
	bytes   int
	refused *remembered
}

// NewStore opens the folder. Damaged files in it are logged, removed and
// fetched again when they are wanted.
func NewStore(c StoreConfig) (*Store, error) {
	if c.Upstream == nil || c.Now == nil || c.Log == nil || c.MaxEntries <= 0 || c.MaxBytes <= 0 || c.RefreshAfter <= 0 {
		return nil, fail(CodeStore, "an upstream, a clock, a log and positive limits", "a zero value", "start from DefaultStoreConfig")
	}
	s := &Store{config: c, items: make(map[Request]*list.Element), order: list.New(), refused: newRemembered(c.MaxEntries)}
	if c.Dir == "" {
		return s, nil
	}
	warn := func(path string, err error) {
		c.Log.Warn("collateral store: file not used", "path", path, "error", err)
	}
	d, err := openDisk(c.Dir, c.Now, warn)
	if err != nil {
		return nil, err
	}
	s.disk = d
	for _, i := range d.load(c.MaxEntries) {
		s.insert(i)
	}
	s.evict()
	return s, nil
}

// Get implements Source. A fresh item is returned at once. Otherwise the
// upstream is asked; the flight goes on when this caller gives up, for the sake
// of the others.
func (s *Store) Get(ctx context.Context, r Request) (Item, error) {
	if err := r.Validate(); err != nil {
		return Item{}, err
	}
	old, found, err := s.lookup(r)
	if found && s.fresh(old) {
		return old, nil
	}
	if err == nil {
		err = s.impatient(ctx, r)
	}
	if err == nil {
		var i Item
		if i, err = s.join(ctx, r); err == nil {
			return i, nil
		}
	}
	if found {
		s.config.Log.Info("collateral store: no newer item", "request", r.String(), "nextUpdate", old.NextUpdate, "error", err)
		return old, nil
	}
	return Item{}, err
}

// lookup returns what is kept, or the refusal that is remembered.
func (s *Store) lookup(r Request) (Item, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.refused.get(r, s.config.Now())
	e, ok := s.items[r]
	if !ok {
		return Item{}, false, err
	}
	s.order.MoveToFront(e)
	return e.Value.(Item).clone(), true, err
}

// fresh reports whether the item is good without asking. An item from the
// future was fetched by a clock that was wrong, then or now.
func (s *Store) fresh(i Item) bool {
	now := s.config.Now()
	if i.Stale(now) {
		return false
	}
	if !i.Request.Kind.Stapled() {
		return true // certificates do not change
	}
	age := now.Sub(i.Fetched)
	return age > -time.Minute && age < s.config.RefreshAfter
}

// impatient refuses a caller that cannot wait for the upstream to begin.
func (s *Store) impatient(ctx context.Context, r Request) error {
	deadline, ok := ctx.Deadline()
	if d := s.config.Upstream.Delay(r); ok && d > time.Until(deadline) {
		return throttled("the server", d)
	}
	return nil
}

func (s *Store) join(ctx context.Context, r Request) (Item, error) {
	ch := s.flights.DoChan(r.String(), func() (any, error) {
		// Another flight may have landed since this caller looked.
		if i, ok, _ := s.lookup(r); ok && s.fresh(i) {
			return i, nil
		}
		i, err := s.config.Upstream.Fetch(context.WithoutCancel(ctx), r)
		s.keep(r, i, err)
		return i, err
	})
	select {
	case <-ctx.Done():
		return Item{}, unreachable("the server", ctx.Err())
	case result := <-ch:
		if result.Err != nil {
			return Item{}, result.Err
		}
		return result.Val.(Item).clone(), nil
	}
}

// keep remembers the upstream's answer.
func (s *Store) keep(r Request, i Item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.refused.add(r, err, s.config.Now())
		return
	}
	s.refused.forget(r)
	s.put(i)
}

// Put keeps an item that came another way. An older one does not replace a
// newer one.
func (s *Store) Put(i Item) error {
	i, err := NewItem(i.Request, i.Body, i.Certs, i.Fetched)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.items[i.Request]; ok && e.Value.(Item).NextUpdate.After(i.NextUpdate) {
		return nil
	}
	s.put(i)
	return nil
}

// put may fail to write: memory still serves.
func (s *Store) put(i Item) {
	i = i.clone()
	var replaced *Item
	if e, ok := s.items[i.Request]; ok {
		old := e.Value.(Item)
		replaced = &old
	}
	s.insert(i)
	if s.disk != nil {
		err := s.disk.put(i)
		if err != nil {
			s.config.Log.Error("collateral store: item is kept in memory only", "request", i.Request.String(), "error", err)
		}
		if replaced != nil {
			s.disk.release(*replaced, err != nil) // the entry on disk may still be the old one
		}
	}
	s.evict()
}

func (s *Store) insert(i Item) {
	if e, ok := s.items[i.Request]; ok {
		s.bytes -= e.Value.(Item).size()
		e.Value = i
		s.order.MoveToFront(e)
	} else {
		s.items[i.Request] = s.order.PushFront(i)
	}
	s.bytes += i.size()
}

// evict forgets the least recently used items, but never the newest.
func (s *Store) evict() {
	for s.order.Len() > 1 && (s.order.Len() > s.config.MaxEntries || s.bytes > s.config.MaxBytes) {
		i := s.order.Remove(s.order.Back()).(Item)
		delete(s.items, i.Request)
		s.bytes -= i.size()
		if s.disk != nil {
			s.disk.drop(i)
		}
	}
}

// Items returns all that is kept, in no order, without asking for anything.
func (s *Store) Items() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Item, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(Item).clone())
	}
	return all
}
