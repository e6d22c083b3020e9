// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdsa"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// SetCallTime shortens what callers are given for a call, for tests of slow ones.
func (s *Server) SetCallTime(d time.Duration) { s.callTime = d }

// Secrets are what must be seen nowhere, by name.
func (s *Server) Secrets(ctx context.Context) (map[string][]byte, error) {
	c := s.core.Load()
	sealing, _, err := s.sealingKey(ctx)
	if err != nil {
		return nil, err
	}
	root, err := c.keys.Root.Bytes()
	if err != nil {
		return nil, err
	}
	own, err := s.key.(*ecdsa.PrivateKey).Bytes()
	return map[string][]byte{
		"seed": c.seed[:], "root key": root, "log key": c.keys.Log.Seed(), "beacon key": c.keys.Beacon.Seed(), "countersigning key": c.keys.Countersign.Seed(),
		"store key": c.keys.Store[:], "TLS key": own, "sealing key": sealing[:],
	}, err
}

// RecoverySection is that of a manifest, for n holders.
func RecoverySection(t testing.TB, n int) *policy.Recovery { return recoverySection(t, n) }
