// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/c8s-dev/c8s/cds/keys"
)

// SealingPurpose is what the TEE is asked a key for (attest.Sealer).
const SealingPurpose = "cds-seed"

const (
	sealTag     = "c8s/cds-seed-at-rest/v1"
	sealVersion = 1
	sealedSize  = 1 + chacha20poly1305.NonceSizeX + len(keys.Seed{}) + chacha20poly1305.Overhead
)

var errUnseal = errors.New("unsealing the seed: it was sealed on another machine, by another measurement, under other firmware or for other operators")

// SealSeed seals the seed under a key of the TEE: one byte of version, the
// nonce, and XChaCha20-Poly1305 over the seed.
//
// The TEE's key depends on the measurement and the guest's policy. It cannot
// depend on HOST_DATA, which SEV-SNP does not offer to mix in: the host could
// start the same measured program for operators of its own and that would get
// the same key. What keeps those operators out is the program: it mixes the
// digest of the operators it was started for, which is its HOST_DATA, and the
// trust domain into the key and the associated data, and being measured it
// cannot be made to mix in others.
func SealSeed(sealingKey [32]byte, trustDomain string, operators [32]byte, seed keys.Seed) ([]byte, error) {
	aead, ad, err := sealer(sealingKey, trustDomain, operators)
	if err != nil {
		return nil, fmt.Errorf("sealing the seed: %w", err)
	}
	if seed == (keys.Seed{}) {
		return nil, errors.New("sealing the seed: it is empty")
	}
	sealed := make([]byte, 1+chacha20poly1305.NonceSizeX, sealedSize)
	sealed[0] = sealVersion
	if _, err := rand.Read(sealed[1:]); err != nil {
		return nil, fmt.Errorf("sealing the seed: %w", err)
	}
	return aead.Seal(sealed, sealed[1:], seed[:], ad), nil
}

// OpenSeed reads what SealSeed made under the same key, trust domain and
// operators.
func OpenSeed(sealingKey [32]byte, trustDomain string, operators [32]byte, sealed []byte) (keys.Seed, error) {
	aead, ad, err := sealer(sealingKey, trustDomain, operators)
	if err != nil {
		return keys.Seed{}, fmt.Errorf("unsealing the seed: %w", err)
	}
	if len(sealed) != sealedSize || sealed[0] != sealVersion {
		return keys.Seed{}, fmt.Errorf("unsealing the seed: %d bytes of another form, expected %d of version %d", len(sealed), sealedSize, sealVersion)
	}
	nonce, ciphertext := sealed[1:1+chacha20poly1305.NonceSizeX], sealed[1+chacha20poly1305.NonceSizeX:]
	plain, err := aead.Open(nil, nonce, ciphertext, ad)
	if err != nil {
		return keys.Seed{}, errUnseal
	}
	return keys.Seed(plain), nil
}

// sealer returns the cipher and the associated data.
func sealer(sealingKey [32]byte, trustDomain string, operators [32]byte) (cipher.AEAD, []byte, error) {
	if sealingKey == [32]byte{} || trustDomain == "" {
		return nil, nil, errors.New("the TEE's key or the trust domain is missing")
	}
	ad := append([]byte(sealTag), 0)
	ad = append(ad, operators[:]...)
	ad = binary.BigEndian.AppendUint64(ad, uint64(len(trustDomain)))
	ad = append(ad, trustDomain...)
	key, err := hkdf.Key(sha256.New, sealingKey[:], nil, string(ad), chacha20poly1305.KeySize)
	if err != nil {
		return nil, nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	return aead, ad, err
}
