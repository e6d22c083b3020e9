// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cloudflare/circl/secretsharing"

	"github.com/c8s-dev/c8s/cds/internal/secret"
	"github.com/c8s-dev/c8s/cds/keys"
)

// Collector gathers shares until there are enough. It is safe for concurrent
// use.
type Collector struct {
	secret.Hidden
	document *Document
	mu       sync.Mutex
	good     map[string]secretsharing.Share
}

// NewCollector waits for shares of the document.
func NewCollector(d *Document) (*Collector, error) {
	if d.Digest() == "" {
		return nil, errors.New("collecting recovery shares: the document is not well-formed: parse it first")
	}
	return &Collector{document: d, good: map[string]secretsharing.Share{}}, nil
}

// Add takes a good share, once; a *BadShareError says why another is refused.
func (c *Collector) Add(s Share) error {
	good, err := c.document.verify(s)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.good[s.Name] = good
	return nil
}

// Missing is how many shares are still needed.
func (c *Collector) Missing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.document.Threshold-len(c.good))
}

// Seed brings the seed back.
func (c *Collector) Seed() (keys.Seed, error) {
	if missing := c.Missing(); missing > 0 {
		return keys.Seed{}, fmt.Errorf("recovering the seed: %d more shares are needed of %d", missing, c.document.Threshold)
	}
	c.mu.Lock()
	shares := make([]secretsharing.Share, 0, len(c.good))
	for _, s := range c.good {
		shares = append(shares, s)
	}
	c.mu.Unlock()
	scalar, err := secretsharing.Recover(uint(c.document.Threshold-1), shares) //nolint:gosec // from 1
	if err != nil {
		return keys.Seed{}, fmt.Errorf("recovering the seed: %w", err)
	}
	seed, err := c.document.openSeed(scalar)
	if err != nil {
		return keys.Seed{}, fmt.Errorf("recovering the seed: %w", err)
	}
	return seed, nil
}
