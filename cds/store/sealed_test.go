// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

func seal(t testing.TB, s store.Store, key byte) store.Store {
	t.Helper()
	sealed, err := store.Sealed(s, [32]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealedConforms(t *testing.T) {
	storetest.Conform(t, func(t *testing.T) store.Store { return seal(t, storetest.NewMemory(), 1) })
}

func TestSealedShowsTheHostNothing(t *testing.T) {
	m := storetest.NewMemory()
	s := seal(t, m, 1)
	secret := []byte("a secret of some length")
	seen := make(map[string]bool)
	for range 3 {
		if _, err := s.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "k", Data: secret}}}); err != nil {
			t.Fatal(err)
		}
		v, err := m.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(v.Data, secret[:8]) {
			t.Errorf("stored in the clear: %q", v.Data)
		}
		if len(v.Data) != len(secret)+store.SealOverhead {
			t.Errorf("%d bytes, want %d more than the secret's %d", len(v.Data), store.SealOverhead, len(secret))
		}
		if seen[string(v.Data)] {
			t.Error("sealed twice to the same bytes")
		}
		seen[string(v.Data)] = true
	}
}

func TestSealedRefusesWhatItDidNotSeal(t *testing.T) {
	m := storetest.NewMemory()
	s := seal(t, m, 1)
	_, err := s.Commit(t.Context(), store.Txn{Put: []store.Item{
		{Key: "k", Data: []byte("mine")}, {Key: "l", Data: []byte("another's")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	raw := func(key string) []byte {
		v, err := m.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return v.Data
	}
	good := raw("k")
	bad := map[string][]byte{
		"empty":            {},
		"one byte":         {0},
		"nonce alone":      good[:24],
		"shorter":          good[:len(good)-1],
		"longer":           append(bytes.Clone(good), 0),
		"in the clear":     []byte("mine"),
		"another key's":    raw("l"),
		"tag and no data":  make([]byte, store.SealOverhead),
		"padded and no AD": make([]byte, 100),
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		bad[string(rune('A'+i))+" flipped"] = flipped
	}
	for name, data := range bad {
		m.Tamper("k", data)
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, store.ErrSealed) || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: Get: %v, want ErrSealed", name, err)
		}
		err := s.Scan(t.Context(), "", func(key string, v store.Value) error {
			t.Errorf("%s: Scan passed on %q: %q", name, key, v.Data)
			return nil
		})
		if !errors.Is(err, store.ErrSealed) {
			t.Errorf("%s: Scan: %v, want ErrSealed", name, err)
		}
	}
	m.Tamper("k", good)
	if v, err := s.Get(t.Context(), "k"); err != nil || string(v.Data) != "mine" {
		t.Errorf("put back: %q, %v", v.Data, err)
	}
	if _, err := seal(t, m, 2).Get(t.Context(), "k"); !errors.Is(err, store.ErrSealed) {
		t.Errorf("under another key: %v, want ErrSealed", err)
	}
}
