// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrNoSealing says that this machine derives no keys.
var ErrNoSealing = errors.New("this TEE derives no sealing key")

// Sealer is an optional capability of an Attester: a key that only this
// measurement on this machine can ask for. Keys for different purposes differ.
//
// A key lasts as long as measurement, guest policy and the firmware that the
// machine reports: whoever seals with it needs another way back to what was
// sealed. It does not depend on HOST_DATA, see package handover.
type Sealer interface {
	SealingKey(ctx context.Context, purpose string) ([32]byte, error)
}

// sealingLabel separates these keys from all others; the purpose follows.
const sealingLabel = "c8s/sealing/v1/"

// SealingKeyFor makes the key for a purpose of the one that the TEE gave.
func SealingKeyFor(root []byte, purpose string) ([32]byte, error) {
	if purpose == "" || len(root) < 32 {
		return [32]byte{}, errors.New("deriving a sealing key: no purpose, or no key of the TEE")
	}
	key, err := hkdf.Key(sha256.New, root, nil, sealingLabel+purpose, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("deriving a sealing key: %w", err)
	}
	return [32]byte(key), nil
}
