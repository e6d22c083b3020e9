// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/attest"
)

const (
	secretSize = 32 // bytes
	sealingTag = "c8s/sim/sealing/v1"
)

// SealingKey implements attest.Sealer as SEV-SNP does: the key depends on the
// chip, the measurement and the guest policy, and not on HOST_DATA. The chip's
// secret is a file beside the vendor's, mode 0600.
func (t *TEE) SealingKey(_ context.Context, purpose string) ([32]byte, error) {
	secret, err := t.chipSecret()
	if err != nil {
		return [32]byte{}, fmt.Errorf("deriving a simulated sealing key: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(append([]byte(sealingTag), 0))
	mac.Write(t.report.Measurement[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, t.report.Policy))
	return attest.SealingKeyFor(mac.Sum(nil), purpose)
}

// chipSecret reads the secret of this chip or makes one. When several processes
// make one at once, the first to finish wins and all use it.
func (t *TEE) chipSecret() ([]byte, error) {
	id := sha256.Sum256(append([]byte(t.opts.Product+"\x00"), t.opts.ChipID[:]...))
	path := filepath.Join(t.dir, "simulated-chip-"+hex.EncodeToString(id[:8])+".secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		fresh := make([]byte, secretSize)
		if _, err := io.ReadFull(t.random, fresh); err != nil {
			return nil, err
		}
		if err := writeOnce(path, fresh); err != nil {
			return nil, err
		}
		secret, err = os.ReadFile(path)
	}
	if err == nil && len(secret) != secretSize {
		err = fmt.Errorf("%s has %d bytes, expected %d: remove it to make a new one, and lose what was sealed", path, len(secret), secretSize)
	}
	return secret, err
}
