// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

var (
	// ErrNotExtension says that a head does not extend the tree it was compared
	// with: it is smaller, or what it has at the tree's size is something else.
	ErrNotExtension = errors.New("the log does not extend the one known")
	// ErrDamaged says that the storage does not hold what hashes to the root:
	// something is missing, older than the root, or was altered.
	ErrDamaged = errors.New("the stored log does not hash to its root")
)

// Storage is what the log is kept in. It is not trusted.
type Storage interface {
	// Get returns the value of a key, or an error wrapping fs.ErrNotExist.
	Get(ctx context.Context, key string) ([]byte, error)
	// Scan calls fn for every key with the prefix, in ascending order, until fn
	// fails.
	Scan(ctx context.Context, prefix string, fn func(key string, data []byte) error) error
}

// File is one value to be stored. Its data is shared with the tree it comes
// from and must not be modified.
type File struct {
	Key  string
	Data []byte
}

// Delta is what an append changes in the storage. It must be committed as a
// whole, in one transaction with the head that names the new size and root. No
// key of Put has a prefix of DeletePrefix.
type Delta struct {
	Put          []File
	DeletePrefix []string
}

// Numbers in keys have a fixed width, so that ascending keys are ascending
// entries. A key is never longer than 40 bytes.

func tileKey(level int, n int64) string { return fmt.Sprintf("log/tile/%x/%016x", level, n) }

func bundleKey(n int64) string { return fmt.Sprintf("log/bundle/%016x", n) }

func piecePrefix(n int64) string { return fmt.Sprintf("log/piece/%016x/", n) }

func pieceKey(n int64, offset int) string { return fmt.Sprintf("%s%02x", piecePrefix(n), offset) }

// get reads a value that the tree says is there: without it the storage is
// damaged, which is not the same as a file that the log does not have.
func get(ctx context.Context, s Storage, key string) ([]byte, error) {
	data, err := s.Get(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the log: %w: %s is missing", ErrDamaged, key)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	return data, nil
}
