// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"crypto/ecdh"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// NewRecoveryKey writes a new recovery key to path and returns its public half.
func NewRecoveryKey(path string, force bool) (public [32]byte, err error) {
	key, public, err := recovery.NewRecoveryKey()
	if err != nil {
		return public, err
	}
	x, err := ecdh.X25519().NewPrivateKey(key.Bytes())
	if err != nil {
		return public, fmt.Errorf("encoding the recovery key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(x)
	if err != nil {
		return public, fmt.Errorf("encoding the recovery key: %w", err)
	}
	return public, desk.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: der}), desk.ModeSecret, force)
}

// ReadRecoveryKey reads what NewRecoveryKey wrote. No error repeats any of it.
func ReadRecoveryKey(path string, warn io.Writer) (recovery.PrivateKey, error) {
	der, err := readBlock(path, blockPrivate)
	if err != nil {
		return recovery.PrivateKey{}, fmt.Errorf("reading the recovery key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return recovery.PrivateKey{}, fmt.Errorf("reading the recovery key: %s is not a PKCS#8 key", path)
	}
	key, ok := parsed.(*ecdh.PrivateKey)
	if !ok || key.Curve() != ecdh.X25519() {
		return recovery.PrivateKey{}, fmt.Errorf("reading the recovery key: %s holds a %T, not an X25519 key; make one with 'c8s manifest recovery-key new'", path, parsed)
	}
	warnLoose(warn, path)
	return recovery.PrivateKeyFrom(key.Bytes())
}
