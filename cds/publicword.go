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
	// endorsementPeriod is how often the public keys are attested anew, and
	// endorsementRetry how soon again when that failed.
	endorsementPeriod, endorsementRetry = 30 * time.Minute, time.Minute
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
	turn chan struct{} // holds one token; whoever has it may change the rest
	made time.Time
	next time.Time // when to make another
	last []byte
}

// endorse returns the CDS's public keys with this replica's evidence for them.
// Where no other is to be had, the last is as good as when it was made.
func (c *core) endorse(ctx context.Context) ([]byte, error) {
	e := &c.endorsement
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-e.turn }()
	now := c.clock.Now()
	if e.last != nil && now.Before(e.next) {
		return e.last, nil
	}
	raw, err := c.newEndorsement(ctx, now)
	switch {
	case err == nil:
		e.made, e.next, e.last = now, now.Add(endorsementPeriod), raw
	case e.last == nil || now.Sub(e.made) > trust.EndorsementLife/2:
		return nil, err
	default:
		e.next = now.Add(endorsementRetry)
		c.s.cfg.Log.Error("keys not endorsed anew", "err", err, "retryIn", endorsementRetry)
	}
	return e.last, nil
}

func (c *core) newEndorsement(ctx context.Context, now time.Time) ([]byte, error) {
	doc, err := trust.Endorse(ctx, c.s.cfg.Attester, c.bundle, now)
	if err != nil {
		return nil, err
	}
	return doc.Encode()
}
