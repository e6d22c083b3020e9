// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
)

// sealSeed keeps the seed for the next start of this program on this machine.
func (c *core) sealSeed(ctx context.Context) error {
	boot, err := c.sealedSeed(ctx)
	if errors.Is(err, attest.ErrNoSealing) {
		c.s.cfg.Log.Info("this TEE seals nothing: after a restart the secret comes from another replica or from the operators' shares")
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := ledger.Reach(c.s.cfg.Store).Commit(ctx, store.Txn{Put: boot}); err != nil {
		return fmt.Errorf("keeping the sealed seed: %w", err)
	}
	return nil
}

// sealedSeed is the seed as this machine keeps it, where the TEE can derive a
// key for that.
func (c *core) sealedSeed(ctx context.Context) ([]store.Item, error) {
	key, name, err := c.s.sealingKey(ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := handover.SealSeed(key, c.trustDomain, c.s.cfg.Operators.Digest(), *c.seed)
	if err != nil {
		return nil, err
	}
	return []store.Item{{Key: name, Data: sealed}}, nil
}

// unseal reads the seed this program kept on this machine.
func (s *Server) unseal(ctx context.Context) (keys.Seed, error) {
	key, name, err := s.sealingKey(ctx)
	if err != nil {
		return keys.Seed{}, err
	}
	v, err := ledger.Reach(s.cfg.Store).Get(ctx, name)
	if err != nil {
		return keys.Seed{}, fmt.Errorf("reading the sealed seed: %w", err)
	}
	return handover.OpenSeed(key, s.cfg.Manifest.Manifest.TrustDomain, s.cfg.Operators.Digest(), v.Data)
}

// sealingKey asks the TEE, and names the value sealed with it: by the key
// itself, since nothing else knows the machine before it is attested.
func (s *Server) sealingKey(ctx context.Context) (key [32]byte, name string, err error) {
	sealer, ok := s.cfg.Attester.(attest.Sealer)
	if !ok {
		return key, "", attest.ErrNoSealing
	}
	if key, err = sealer.SealingKey(ctx, handover.SealingPurpose); err != nil {
		return key, "", fmt.Errorf("asking the TEE for a sealing key: %w", err)
	}
	sum := sha256.Sum256(append([]byte("c8s/cds-seed-name/v1\x00"), key[:]...))
	return key, sealedSeeds + hex.EncodeToString(sum[:16]), nil
}
