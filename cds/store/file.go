// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/c8s-dev/c8s/cds/store/internal/boltcheck"
	"github.com/c8s-dev/c8s/cds/store/internal/notify"
	"github.com/c8s-dev/c8s/internal/filelock"
)

const (
	// A page of Scan ends at either; between pages no lock is held.
	filePageKeys  = 256
	filePageBytes = 1 << 20
)

// bucket holds everything; its sequence number is the last version given out,
// and every value starts with its own, eight bytes in big endian.
var bucket = []byte("c8s")

var errDamaged = errors.New("the file is damaged or no store: restore a copy")

type file struct {
	db  *bbolt.DB
	hub notify.Hub
}

// OpenFile opens the store in one file, or makes it, with mode 0600. One
// process at a time can have it open: others get filelock.ErrHeld. What Commit reported as done survives
// the end of the process and of the machine.
func OpenFile(path string) (Store, error) {
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = openBolt(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return &file{db: db}, nil
}

func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		OpenFile:     openChecked,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	// A store whose name is lost with the power would look like one that never
	// was, and a CDS bootstraps on those.
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openChecked locks the file before anything of it is believed, and checks it
// before bbolt maps it. Bbolt locks it again, which changes nothing.
func openChecked(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	err = lock(f)
	if err == nil {
		err = check(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lock(f *os.File) error {
	err := filelock.Hold(f)
	if errors.Is(err, filelock.ErrHeld) {
		return fmt.Errorf("another c8s cds has it open: stop that one, or give this one a file of its own (%w)", err)
	}
	return err
}

func check(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 { // bbolt makes it
		return err
	}
	if err := boltcheck.Check(f, info.Size()); err != nil {
		return fmt.Errorf("%w (%w)", errDamaged, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *file) Get(ctx context.Context, key string) (Value, error) {
	var v Value
	err := f.view(ctx, func(b *bbolt.Bucket) (err error) {
		v, err = decode(key, b.Get([]byte(key)))
		return err
	})
	if err != nil {
		return Value{}, fmt.Errorf("reading %q from the store: %w", key, err)
	}
	return v, nil
}

func (f *file) Scan(ctx context.Context, prefix string, fn func(string, Value) error) error {
	type entry struct {
		key   string
		value Value
	}
	for from, more := prefix, true; more; {
		var page []entry
		err := f.view(ctx, func(b *bbolt.Bucket) error {
			size := 0
			more = false
			c := b.Cursor()
			for k, raw := c.Seek([]byte(from)); k != nil && strings.HasPrefix(string(k), prefix); k, raw = c.Next() {
				if len(page) == filePageKeys || size >= filePageBytes {
					from, more = string(k), true
					break
				}
				v, err := decode(string(k), raw)
				if err != nil {
					return err
				}
				size += len(v.Data)
				page = append(page, entry{string(k), v})
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("listing %q in the store: %w", prefix, err)
		}
		for _, e := range page {
			if err := fn(e.key, e.value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *file) Commit(ctx context.Context, t Txn) (Version, error) {
	if err := t.Check(); err != nil {
		return 0, fmt.Errorf("writing to the store: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("writing to the store: %w", err)
	}
	var version Version
	err := guard(func() error {
		return f.db.Update(func(tx *bbolt.Tx) (err error) {
			version, err = apply(tx.Bucket(bucket), t)
			return err
		})
	})
	// Also after an error: the last step may have failed with all done.
	f.hub.Changed(t.Changes)
	if err != nil {
		return 0, fmt.Errorf("writing to the store: %w", err)
	}
	return version, nil
}

func apply(b *bbolt.Bucket, t Txn) (Version, error) {
	for _, c := range t.If {
		v, err := decode(c.Key, b.Get([]byte(c.Key)))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
		if v.Version != c.Version {
			return 0, fmt.Errorf("%w: %q has version %d, not %d", ErrConflict, c.Key, v.Version, c.Version)
		}
	}
	for _, k := range t.Delete {
		if err := b.Delete([]byte(k)); err != nil {
			return 0, err
		}
	}
	for _, p := range t.DeletePrefix {
		if err := deletePrefix(b, []byte(p)); err != nil {
			return 0, err
		}
	}
	if len(t.Put) == 0 {
		return 0, nil
	}
	version, err := b.NextSequence()
	if err != nil {
		return 0, err
	}
	for _, item := range t.Put {
		raw := append(binary.BigEndian.AppendUint64(nil, version), item.Data...)
		if err := b.Put([]byte(item.Key), raw); err != nil {
			return 0, err
		}
	}
	return Version(version), nil
}

func deletePrefix(b *bbolt.Bucket, prefix []byte) error {
	var keys [][]byte // a cursor does not survive changes of its bucket
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && strings.HasPrefix(string(k), string(prefix)); k, _ = c.Next() {
		keys = append(keys, append([]byte(nil), k...))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// decode copies a value out of the transaction.
func decode(key string, raw []byte) (Value, error) {
	if raw == nil {
		return Value{}, ErrNotFound
	}
	if len(raw) < 8 {
		return Value{}, fmt.Errorf("%w (%q has no version)", errDamaged, key)
	}
	return Value{
		Version: Version(binary.BigEndian.Uint64(raw)),
		Data:    append([]byte{}, raw[8:]...),
	}, nil
}

func (f *file) view(ctx context.Context, fn func(*bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error { return fn(tx.Bucket(bucket)) })
	})
}

// guard makes an error of what bbolt does with a file that was damaged or cut
// while it was open, or that boltcheck has no rule for: a panic, or a fault.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errDamaged, p)
		}
	}()
	return fn()
}

func (f *file) Watch(ctx context.Context, key string) <-chan struct{} {
	return f.hub.Watch(ctx, key)
}

// Close waits for the transactions under way.
func (f *file) Close() error {
	f.hub.Close()
	return f.db.Close()
}
