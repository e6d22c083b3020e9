// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/c8s-dev/c8s/cds/store/internal/notify"
)

const (
	// defaultWatchLife: a watch may be deaf, for instance because etcd was
	// restored to an earlier revision and the watch waits for a later one. Each
	// renewal is a signal.
	defaultWatchLife = time.Minute
	// watchPause keeps a failing watch from spinning.
	watchPause = 500 * time.Millisecond
)

// Watch signals also whenever the watch was set up (again): what happened
// before that may have been missed.
func (e *etcd) Watch(ctx context.Context, key string) <-chan struct{} {
	ch := make(chan struct{}, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		close(ch)
		return ch
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.ctx, cancel)
	e.watches.Go(func() {
		defer close(ch)
		defer cancel()
		defer stop()
		for ctx.Err() == nil {
			err := e.watchOnce(ctx, e.prefix+key, ch)
			if err == nil || ctx.Err() != nil {
				continue
			}
			e.log.WarnContext(ctx, "the watch of a key in etcd broke and is set up again", "key", key, "error", err)
			select {
			case <-time.After(watchPause):
			case <-ctx.Done():
			}
		}
	})
	return ch
}

// watchOnce signals until the watch breaks or its life is over; nil for the
// latter. The client itself resumes over lost connections, without a gap.
func (e *etcd) watchOnce(ctx context.Context, key string, ch chan<- struct{}) error {
	// A member without a leader would keep the watch open and hear nothing.
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), e.watchLife)
	defer cancel()
	for resp := range e.client.Watch(ctx, key, clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return explain(err)
		}
		notify.Signal(ch)
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("etcd ended it")
}
