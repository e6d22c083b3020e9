// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

const (
	maxIndexes   = 8192
	maxQuestions = 4                // at once
	askAgain     = 30 * time.Second // after one that failed
)

// logIndex knows where certificates stand in the CDS's log. Requests never wait
// for it: the first answers of a pod go without.
type logIndex struct {
	life context.Context
	ask  func(context.Context, policy.Digest) (int64, error) // nil: nobody to ask
	log  *slog.Logger
	now  func() time.Time

	mu     sync.RWMutex
	known  map[policy.Digest]int64
	asked  map[policy.Digest]time.Time // those not known: when they may be asked for
	places chan struct{}
}

func newLogIndex(life context.Context, ask func(context.Context, policy.Digest) (int64, error), log *slog.Logger, now func() time.Time) *logIndex {
	return &logIndex{
		life: life, ask: ask, log: log, now: now,
		known: map[policy.Digest]int64{}, asked: map[policy.Digest]time.Time{}, places: make(chan struct{}, maxQuestions),
	}
}

func (l *logIndex) get(leaf policy.Digest) (int64, bool) {
	if l.ask == nil {
		return 0, false
	}
	l.mu.RLock()
	index, ok := l.known[leaf]
	l.mu.RUnlock()
	if !ok {
		l.find(leaf)
	}
	return index, ok
}

func (l *logIndex) find(leaf policy.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, waits := l.asked[leaf]; waits && l.now().Before(at) || l.life.Err() != nil {
		return
	}
	select {
	case l.places <- struct{}{}:
	default:
		return // a later request asks
	}
	if len(l.asked) >= maxIndexes {
		clear(l.asked)
	}
	l.asked[leaf] = l.now().Add(askAgain)
	go func() {
		defer func() { <-l.places }()
		ctx, cancel := context.WithTimeout(l.life, logTimeout)
		defer cancel()
		index, err := l.ask(ctx, leaf)
		if err != nil {
			l.log.Debug("a certificate's place in the log was not found", "certificate", leaf, "err", err)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.known) >= maxIndexes { // pods come and go: begin anew
			clear(l.known)
		}
		l.known[leaf] = index
		delete(l.asked, leaf)
	}()
}
