// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/c8s-dev/c8s/cds/store"
)

const (
	// storeTimeout bounds one exchange with the store.
	storeTimeout = 5 * time.Second
	// scanTimeout bounds a listing, which takes several.
	scanTimeout = 30 * time.Second
)

// Reach returns the store with every exchange bounded in time, and with
// ErrUnavailable where there was no answer: what is missing, was changed by
// somebody else or does not open is one.
func Reach(s store.Store) store.Store {
	if r, ok := s.(reach); ok {
		return r
	}
	return reach{s}
}

type reach struct{ store.Store }

func (r reach) Get(ctx context.Context, key string) (store.Value, error) {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	v, err := r.Store.Get(limited, key)
	return v, unanswered(ctx, err)
}

func (r reach) Scan(ctx context.Context, prefix string, fn func(string, store.Value) error) error {
	limited, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	var own error
	err := r.Store.Scan(limited, prefix, func(key string, v store.Value) error {
		own = fn(key, v)
		return own
	})
	if own != nil {
		return own
	}
	return unanswered(ctx, err)
}

func (r reach) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	version, err := r.Store.Commit(limited, t)
	return version, unanswered(ctx, err)
}

// unanswered marks err with ErrUnavailable unless it is an answer, or the
// caller's own end.
func unanswered(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, answer := range []error{store.ErrNotFound, store.ErrConflict, store.ErrInvalid, store.ErrSealed, ErrUnavailable} {
		if errors.Is(err, answer) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// unavailable marks what a changed or damaged store gives with ErrUnavailable:
// this replica cannot go on with it, and tries again.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
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
