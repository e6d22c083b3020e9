// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/kept"
)

// The file is a magic with the version of its form, a nonce, and
// XChaCha20-Poly1305 over the state, with magic and trust domain as associated
// data. The key is the TEE's for this purpose, and thereby for this measurement
// on this machine.
const (
	sealMagic  = "c8s/ingress-certs/v1\n"
	sealHeader = len(sealMagic) + chacha20poly1305.NonceSizeX
	maxSealed  = 32 << 20 // a thousand names with long chains
)

type vault struct {
	path string
	aead cipher.AEAD
	ad   []byte
	put  func(path string, content []byte) error
	log  *slog.Logger
}

// openVault returns nil where nothing can be sealed.
func openVault(ctx context.Context, cfg Config) (*vault, error) {
	if cfg.Sealer == nil {
		return nil, nil
	}
	root, err := cfg.Sealer.SealingKey(ctx, SealingPurpose)
	switch {
	case errors.Is(err, attest.ErrNoSealing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("asking the TEE for a sealing key: %w", err)
	case root == [32]byte{}:
		return nil, errors.New("asking the TEE for a sealing key: it is empty")
	case cfg.Path == "":
		return nil, errors.New("there is no path for the sealed state")
	}
	v := &vault{path: cfg.Path, ad: append([]byte(sealMagic), cfg.TrustDomain...), put: kept.Replace, log: cfg.Log}
	key, err := hkdf.Key(sha256.New, root[:], nil, string(v.ad), chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the sealed state: %w", err)
	}
	v.aead, err = chacha20poly1305.NewX(key)
	return v, err
}

func (v *vault) save(s *state) error {
	plain, err := s.encode()
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	sealed := make([]byte, sealHeader, sealHeader+len(plain)+v.aead.Overhead())
	copy(sealed, sealMagic)
	nonce := sealed[len(sealMagic):]
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("sealing the state: %w", err)
	}
	if sealed = v.aead.Seal(sealed, nonce, plain, v.ad); len(sealed) > maxSealed {
		return fmt.Errorf("sealing the state: %d bytes, at most %d", len(sealed), maxSealed)
	}
	return v.put(v.path, sealed)
}

// load returns nil where there is nothing that can be used; what is there is
// put aside then, for whom it was sealed may want it back: the measurement
// before an upgrade.
func (v *vault) load() (*state, error) {
	sealed, err := readAtMost(v.path, maxSealed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sealed state: %w", err)
	}
	s, err := v.open(sealed)
	if err == nil {
		return s, nil
	}
	digest := sha256.Sum256(sealed)
	aside := v.path + ".refused-" + hex.EncodeToString(digest[:4])
	if err := os.Rename(v.path, aside); err != nil {
		return nil, fmt.Errorf("putting the refused state aside: %w", err)
	}
	v.log.Warn("the sealed state is refused: starting with a new TLS key, a new account and no certificates",
		"code", CodeState, "reason", err, "aside", aside)
	return nil, nil
}

var errForeign = errors.New("it was sealed on another machine, by another measurement, under other firmware or for another trust domain, or was damaged since; an upgrade of the ingress has this effect")

// open reads what save made.
func (v *vault) open(sealed []byte) (*state, error) {
	if len(sealed) < sealHeader+v.aead.Overhead() || string(sealed[:len(sealMagic)]) != sealMagic {
		return nil, fmt.Errorf("%d bytes that are no sealed state of version 1: truncated, damaged or of another version", len(sealed))
	}
	plain, err := v.aead.Open(nil, sealed[len(sealMagic):sealHeader], sealed[sealHeader:], v.ad)
	if err != nil {
		return nil, errForeign
	}
	s, err := parseState(plain)
	if err != nil {
		return nil, fmt.Errorf("parsing the unsealed state: %w", err)
	}
	return s, nil
}

// readAtMost returns the content of a file. More than limit bytes are cut to
// limit and one, which no parser here takes.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}
