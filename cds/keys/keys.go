// SPDX-License-Identifier: Apache-2.0

// Package keys derives everything that a trust domain's CDS signs and seals
// with from one seed. Its invariant: keys of different uses, and of different
// trust domains, never coincide, and neither seed nor keys are ever printed.
package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/cds/internal/secret"
)

// salt and label separate these derivations from all others; the use follows
// the label. docs/vectors/keys.json pins them.
const (
	salt  = "c8s/cds-seed/v1"
	label = "c8s/cds-key/v1/"
)

// The uses, one label each, with the bytes each key is made of.
const (
	useRoot        = "root"
	useLog         = "log"
	useBeacon      = "beacon"
	useCountersign = "countersign"
	useStore       = "store"
)

func uses() map[string]int {
	return map[string]int{
		useRoot: wideScalar, useLog: ed25519.SeedSize, useBeacon: ed25519.SeedSize, useCountersign: ed25519.SeedSize, useStore: len(Key{}),
	}
}

// Seed is the one secret of a trust domain's CDS.
type Seed [32]byte

// NewSeed makes a seed.
func NewSeed(random io.Reader) (Seed, error) {
	var s Seed
	if _, err := io.ReadFull(random, s[:]); err != nil {
		return Seed{}, fmt.Errorf("making the CDS's seed: %w", err)
	}
	return s, nil
}

// Key is a symmetric key.
type Key [32]byte

// Keys are all that follows from a seed. Each is for its one use.
type Keys struct {
	secret.Hidden
	Root        *ecdsa.PrivateKey  // of the mesh CA; P-256
	Log         ed25519.PrivateKey // signs checkpoints
	Beacon      ed25519.PrivateKey
	Countersign ed25519.PrivateKey // signs manifests and deny lists beside the operators
	Store       Key                // seals the store
}

// Derive returns the keys of a trust domain.
func Derive(seed Seed, trustDomain string) (*Keys, error) {
	k, err := derive(seed, trustDomain)
	if err != nil {
		return nil, fmt.Errorf("deriving the CDS's keys: %w", err)
	}
	return k, nil
}

func derive(seed Seed, trustDomain string) (*Keys, error) {
	if td, err := spiffeid.TrustDomainFromString(trustDomain); err != nil || td.Name() != trustDomain {
		return nil, fmt.Errorf("%q is not the name of a trust domain", trustDomain)
	}
	if seed == (Seed{}) {
		return nil, errors.New("the seed is empty")
	}
	prk, err := hkdf.Extract(sha256.New, seed[:], []byte(salt))
	if err != nil {
		return nil, err
	}
	material := make(map[string][]byte)
	for use, size := range uses() {
		if material[use], err = hkdf.Expand(sha256.New, prk, label+use+"\x00"+trustDomain, size); err != nil {
			return nil, err
		}
	}
	root, err := p256(material[useRoot])
	if err != nil {
		return nil, err
	}
	return &Keys{
		Root: root, Log: ed25519.NewKeyFromSeed(material[useLog]), Beacon: ed25519.NewKeyFromSeed(material[useBeacon]),
		Countersign: ed25519.NewKeyFromSeed(material[useCountersign]), Store: Key(material[useStore]),
	}, nil
}

// wideScalar is the length of the number that becomes a P-256 key: 128 bits
// more than the group's order, so that the reduction's bias is below 2^-128
// (FIPS 186-5, A.2.1).
const wideScalar = 48

// p256 reduces a wide number to 1 … n-1. The time math/big takes depends on the
// number; the reduction happens once in a process's life.
func p256(wide []byte) (*ecdsa.PrivateKey, error) {
	one := big.NewInt(1)
	n := new(big.Int).Sub(elliptic.P256().Params().N, one)
	d := new(big.Int).SetBytes(wide)
	d.Mod(d, n).Add(d, one)
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
}
