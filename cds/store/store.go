// SPDX-License-Identifier: Apache-2.0

// Package store keeps what the CDS must not forget in a place that is not
// trusted. A Commit is applied whole or not at all, and never on top of a
// state other than the one its conditions name. What leaves through Sealed can
// be neither read, forged nor moved to another key by whoever owns the disk;
// that he can delete it, or bring back an older one, is for the caller to find
// (docs/store.md).
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("no such key")
	// ErrConflict: a condition does not hold; nothing was changed.
	ErrConflict = errors.New("the store was changed by somebody else")
	// ErrInvalid: no store takes such a transaction; nothing was changed.
	ErrInvalid = errors.New("invalid transaction")
)

// Limits of one transaction, a margin below what etcd takes in its default
// configuration: 128 operations and 1.5 MiB.
const (
	// MaxTxnOps is the most conditions, and the most changes.
	MaxTxnOps = 100
	// MaxTxnBytes is the most bytes of keys and data together. Sealed adds
	// SealOverhead to every Put.
	MaxTxnBytes = 1 << 20
	// MaxKeyLen is the longest key, in bytes.
	MaxKeyLen = 1024
)

// Version changes with every write of a key and never returns to an earlier
// value, also not when the key is deleted and written again. Zero means that
// there is no such key.
type Version int64

// Value is what a key holds. Data belongs to the caller.
type Value struct {
	Data    []byte
	Version Version
}

// Store is a sorted map with transactions, safe for concurrent use.
type Store interface {
	// Get reads a key, after every Commit that returned before it was called,
	// by whichever process. It fails with ErrNotFound if there is none.
	Get(ctx context.Context, key string) (Value, error)

	// Scan calls fn for the keys with the prefix, ascending, until fn fails,
	// and returns fn's error. It is not a snapshot: keys written or deleted
	// meanwhile may be seen either way. Fn may use the store.
	Scan(ctx context.Context, prefix string, fn func(key string, v Value) error) error

	// Commit applies everything or nothing and returns the version that every
	// key in Put now has; zero if there is none. It fails with ErrConflict if a
	// condition does not hold, and ErrInvalid if Txn.Check does.
	//
	// After any other error it is unknown whether the transaction was applied,
	// or will be: the answer may have been lost. The caller must read back
	// what it wrote before it goes on, and Commit with conditions so that a
	// late first attempt makes the second one fail.
	Commit(ctx context.Context, t Txn) (Version, error)

	// Watch signals when the key may have changed, by this or another process.
	// Signals coalesce and may be spurious: read the key to know. Who calls
	// Watch first and Get second misses nothing; while the store cannot be
	// reached, what was missed is signalled once it can be. The channel is
	// closed when ctx ends or the store is closed.
	Watch(ctx context.Context, key string) <-chan struct{}

	Close() error
}

// Condition holds if the key has this version now; with version zero, if there
// is no such key.
type Condition struct {
	Key     string
	Version Version
}

// Item is a key and what it shall hold.
type Item struct {
	Key  string
	Data []byte
}

// Txn is one transaction. All of If are checked before anything is changed.
// No key may be written twice, or both written and deleted.
type Txn struct {
	If           []Condition
	Put          []Item
	Delete       []string // missing keys are no error
	DeletePrefix []string
}

// Check refuses, with ErrInvalid, what any of the stores would refuse, so that
// all of them take the same transactions.
func (t Txn) Check() error {
	if len(t.If) > MaxTxnOps {
		return fmt.Errorf("%w: %d conditions, at most %d are allowed", ErrInvalid, len(t.If), MaxTxnOps)
	}
	if n := len(t.Put) + len(t.Delete) + len(t.DeletePrefix); n > MaxTxnOps {
		return fmt.Errorf("%w: %d changes, at most %d are allowed", ErrInvalid, n, MaxTxnOps)
	}
	if err := t.checkKeys(); err != nil {
		return err
	}
	return t.checkOverlap()
}

func (t Txn) checkKeys() error {
	size := 0
	key := func(key string) error {
		size += len(key)
		if key == "" {
			return fmt.Errorf("%w: an empty key or prefix", ErrInvalid)
		}
		if len(key) > MaxKeyLen {
			return fmt.Errorf("%w: key %.64q… of %d bytes, at most %d are allowed", ErrInvalid, key, len(key), MaxKeyLen)
		}
		return nil
	}
	var errs []error
	for _, c := range t.If {
		errs = append(errs, key(c.Key))
	}
	for _, p := range t.Put {
		size += len(p.Data)
		errs = append(errs, key(p.Key))
	}
	for _, keys := range [][]string{t.Delete, t.DeletePrefix} {
		for _, k := range keys {
			errs = append(errs, key(k))
		}
	}
	if size > MaxTxnBytes {
		errs = append(errs, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalid, size, MaxTxnBytes))
	}
	return errors.Join(errs...)
}

// checkOverlap refuses changes whose order would matter: etcd refuses them too.
func (t Txn) checkOverlap() error {
	put := make(map[string]bool, len(t.Put))
	for _, p := range t.Put {
		if put[p.Key] {
			return fmt.Errorf("%w: %q is written twice", ErrInvalid, p.Key)
		}
		put[p.Key] = true
	}
	for _, k := range t.Delete {
		if put[k] {
			return fmt.Errorf("%w: %q is both written and deleted", ErrInvalid, k)
		}
	}
	for _, prefix := range t.DeletePrefix {
		for _, p := range t.Put {
			if strings.HasPrefix(p.Key, prefix) {
				return fmt.Errorf("%w: %q is written and lies under %q, which is deleted", ErrInvalid, p.Key, prefix)
			}
		}
	}
	return nil
}

// Changes says whether the transaction may change the key.
func (t Txn) Changes(key string) bool {
	for _, p := range t.Put {
		if p.Key == key {
			return true
		}
	}
	for _, k := range t.Delete {
		if k == key {
			return true
		}
	}
	for _, p := range t.DeletePrefix {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}
