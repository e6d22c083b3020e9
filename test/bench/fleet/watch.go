// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/cds/api"
)

// Watchers are nodes that wait for the operators' word, each on a connection
// of its own.
type Watchers struct {
	sessions []*Session
	cancel   context.CancelFunc
	ended    sync.WaitGroup

	mu   sync.Mutex
	want []byte // the document that is awaited
	have int    // watchers that got it since Expect
	done func() // ends the waiting
	err  error  // why a watch ended early
}

// Watch opens n watches and returns when each has what is in force now.
func (f *Fleet) Watch(ctx context.Context, addr string, n int) (*Watchers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watchers{sessions: make([]*Session, n), cancel: cancel}
	first := w.Expect(f.Signed.Envelope)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range n {
		g.Go(func() (err error) {
			if w.sessions[i], err = f.Dial(ctx, addr, nil); err != nil {
				return err
			}
			w.ended.Go(func() { w.follow(ctx, w.sessions[i]) })
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		_, err = first(ctx)
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("opening %d watches: %w", n, err)
	}
	return w, nil
}

func (w *Watchers) follow(ctx context.Context, s *Session) {
	stream, err := s.policy.Watch(ctx, &api.WatchRequest{})
	if err == nil {
		for stream.Receive() {
			w.got(stream.Msg())
		}
		err = stream.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && ctx.Err() == nil {
		w.err = fmt.Errorf("a watch ended: %w", err)
		w.done()
	}
}

func (w *Watchers) got(msg *api.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !bytes.Equal(msg.GetManifest(), w.want) && !bytes.Equal(msg.GetDenyList(), w.want) {
		return
	}
	if w.have++; w.have == len(w.sessions) {
		w.done()
	}
}

// Expect begins to wait for a document; what it returns blocks until every
// watcher has it, and says when the last got it.
func (w *Watchers) Expect(envelope []byte) func(context.Context) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(chan struct{})
	w.want, w.have, w.done = envelope, 0, sync.OnceFunc(func() { close(all) })
	if w.err != nil {
		w.done()
	}
	return func(ctx context.Context) (time.Time, error) {
		select {
		case <-all:
		case <-ctx.Done():
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Time{}, fmt.Errorf("%d of %d watchers have it: %w", w.have, len(w.sessions), ctx.Err())
		}
		now := time.Now()
		w.mu.Lock()
		defer w.mu.Unlock()
		return now, w.err
	}
}

// Close ends all watches.
func (w *Watchers) Close() {
	w.cancel()
	for _, s := range w.sessions {
		if s != nil {
			s.Close()
		}
	}
	w.ended.Wait()
}

// PublishManifest offers a signed manifest to the service; it returns when the
// service says it is in force.
func (s *Session) PublishManifest(ctx context.Context, envelope []byte) error {
	_, err := s.policy.PublishManifest(ctx, &api.Document{Envelope: envelope})
	return err
}

// PublishDenyList does the same with a deny list.
func (s *Session) PublishDenyList(ctx context.Context, envelope []byte) error {
	_, err := s.policy.PublishDenyList(ctx, &api.Document{Envelope: envelope})
	return err
}
