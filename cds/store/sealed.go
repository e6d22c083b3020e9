// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrSealed: a value does not open under this key and name. It is there, so
// this is never ErrNotFound: who takes it for a missing one starts over.
var ErrSealed = errors.New("tampered with, or sealed by another CDS")

// SealOverhead is what sealing adds to every value: a nonce of 24 random bytes,
// which never repeat in practice however many processes share the key, and the
// tag.
const SealOverhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// sealDomain keeps these ciphertexts apart from any other use of the key, and
// later formats from this one.
const sealDomain = "c8s/store/v1\x00"

type sealed struct {
	Store
	aead cipher.AEAD
}

// Sealed encrypts and authenticates every value of s with XChaCha20-Poly1305.
// The key's name is associated data, so that a value cannot be passed off as
// that of another key. Names, sizes and versions stay visible and are not
// authenticated. Get and Scan fail with ErrSealed on a value that does not
// open. Closing the result closes s.
func Sealed(s Store, key [chacha20poly1305.KeySize]byte) (Store, error) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("sealing the store: %w", err)
	}
	return &sealed{Store: s, aead: aead}, nil
}

func (s *sealed) Get(ctx context.Context, key string) (Value, error) {
	v, err := s.Store.Get(ctx, key)
	if err != nil {
		return Value{}, err
	}
	return s.open(key, v)
}

func (s *sealed) Scan(ctx context.Context, prefix string, fn func(string, Value) error) error {
	return s.Store.Scan(ctx, prefix, func(key string, v Value) error {
		v, err := s.open(key, v)
		if err != nil {
			return err
		}
		return fn(key, v)
	})
}

func (s *sealed) Commit(ctx context.Context, t Txn) (Version, error) {
	put := make([]Item, len(t.Put))
	for i, item := range t.Put {
		put[i] = Item{item.Key, s.seal(item.Key, item.Data)}
	}
	t.Put = put
	return s.Store.Commit(ctx, t)
}

func (s *sealed) seal(key string, data []byte) []byte {
	out := make([]byte, chacha20poly1305.NonceSizeX, len(data)+SealOverhead)
	rand.Read(out) // never fails: it ends the process instead
	return s.aead.Seal(out, out, data, []byte(sealDomain+key))
}

func (s *sealed) open(key string, v Value) (Value, error) {
	if len(v.Data) < SealOverhead {
		return Value{}, fmt.Errorf("opening %q from the store: %w", key, ErrSealed)
	}
	nonce, box := v.Data[:chacha20poly1305.NonceSizeX], v.Data[chacha20poly1305.NonceSizeX:]
	data, err := s.aead.Open(nil, nonce, box, []byte(sealDomain+key))
	if err != nil {
		return Value{}, fmt.Errorf("opening %q from the store: %w", key, ErrSealed)
	}
	return Value{Data: data, Version: v.Version}, nil
}
