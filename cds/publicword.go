// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/trust"
)

const (
	// beaconPeriod is how often a new beacon is made, at most: all who ask in
	// between get the same.
	beaconPeriod = 10 * time.Second
	// endorsementPeriod is how often the public keys are attested anew.
	endorsementPeriod = 30 * time.Minute
)

// beacons keeps the last beacon.
type beacons struct {
	mu   sync.Mutex
	at   time.Time
	last []byte
}

// beacon returns a signed statement of the time. It is made only while this
// replica is in touch with the others' state: a replica that was cut off must
// not go on vouching.
func (c *core) beacon() ([]byte, error) {
	if err := c.ledger.Err(); err != nil {
		return nil, err
	}
	now := c.clock.Now()
	b := &c.beacons
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != nil && now.Sub(b.at) < beaconPeriod {
		return b.last, nil
	}
	sum := sha256.Sum256(c.ledger.View().Checkpoint)
	doc, err := beacon.Sign(c.keys.Beacon, beacon.Beacon{
		TrustDomain: c.trustDomain, Time: now, Period: beaconPeriod, Checkpoint: sum[:], Clock: c.clock.Source(),
	})
	if err != nil {
		return nil, err
	}
	b.at, b.last = now, doc
	return doc, nil
}

// endorsements keeps the last endorsement.
type endorsements struct {
	mu   sync.Mutex
	at   time.Time
	last []byte
}

// endorse returns the CDS's public keys with this replica's evidence for them.
func (c *core) endorse(ctx context.Context) ([]byte, error) {
	now := c.clock.Now()
	e := &c.endorsement
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last != nil && now.Sub(e.at) < endorsementPeriod {
		return e.last, nil
	}
	doc, err := trust.Endorse(ctx, c.s.cfg.Attester, c.bundle, now)
	if err != nil {
		return nil, err
	}
	raw, err := doc.Encode()
	if err != nil {
		return nil, err
	}
	e.at, e.last = now, raw
	return raw, nil
}
