// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
)

// TestDamagedFileIsAnError: whatever happened to the file, what is read is
// right or refused, and the process goes on to say so.
func TestDamagedFileIsAnError(t *testing.T) {
	good := filledFile(t)
	page := func(data []byte, n int) []byte { return data[n*4096 : (n+1)*4096] }
	last := len(good)/4096 - 1
	for _, tc := range []struct {
		name   string
		damage func(data []byte) []byte
		// noticed is false where the damage may be to what is not in use.
		noticed bool
	}{
		{"nothing", func(data []byte) []byte { return data }, false},
		{"cut in half", func(data []byte) []byte { return data[:len(data)/2] }, true},
		{"cut after the meta pages", func(data []byte) []byte { return data[:2*4096] }, true},
		{"cut inside the meta pages", func(data []byte) []byte { return data[:100] }, true},
		{"both meta pages zero", func(data []byte) []byte {
			clear(data[:2*4096])
			return data
		}, true},
		{"everything else zero", func(data []byte) []byte {
			clear(data[2*4096:])
			return data
		}, true},
		{"everything else ones", func(data []byte) []byte {
			copy(data[2*4096:], bytes.Repeat([]byte{0xff}, len(data)))
			return data
		}, true},
		{"two pages swapped", func(data []byte) []byte {
			a, b := bytes.Clone(page(data, 4)), bytes.Clone(page(data, last))
			copy(page(data, 4), b)
			copy(page(data, last), a)
			return data
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			if err := os.WriteFile(path, tc.damage(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			err := readAll(t, path)
			t.Log(err)
			if tc.noticed && err == nil {
				t.Error("not noticed")
			}
		})
	}
}

// filledFile is a store of many pages.
func filledFile(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	f := openFile(t, path)
	s := seal(t, f, 1)
	for i := range 40 {
		txn := store.Txn{}
		for j := range 10 {
			key := fmt.Sprintf("k/%02d%d", i, j)
			txn.Put = append(txn.Put, store.Item{Key: key, Data: bytes.Repeat([]byte(key), 50)})
		}
		if _, err := s.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(data, "\x00")) // the file grows ahead of its use
	return data[:(used/4096+1)*4096]
}

// readAll fails t if a value is wrong, and returns an error if one is missing
// or anything was refused.
func readAll(t *testing.T, path string) error {
	t.Helper()
	f, err := store.OpenFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, n := seal(t, f, 1), 0
	err = s.Scan(t.Context(), "", func(key string, v store.Value) error {
		if !bytes.Equal(v.Data, bytes.Repeat([]byte(key), 50)) {
			t.Errorf("%q holds something else", key)
		}
		n++
		return nil
	})
	if err == nil && n != 400 {
		err = fmt.Errorf("%d of 400 keys", n)
	}
	return err
}
