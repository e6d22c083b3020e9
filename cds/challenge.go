// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
)

const (
	challengeTTL  = time.Minute
	maxChallenges = 16384
)

// challenges holds the nonces that were given out and not used yet. A nonce
// is good once, for challengeTTL, and on the TLS session it was given on.
type challenges struct {
	now func() time.Time

	mu  sync.Mutex
	out map[[api.NonceSize]byte]challenge
}

type challenge struct {
	session [sha256.Size]byte
	expires time.Time
}

func newChallenges(now func() time.Time) *challenges {
	return &challenges{now: now, out: map[[api.NonceSize]byte]challenge{}}
}

// issue returns a fresh nonce for the session that id names.
func (c *challenges) issue(session [sha256.Size]byte) (nonce [api.NonceSize]byte, expires time.Time, err error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) >= maxChallenges {
		c.expire(now)
	}
	if len(c.out) >= maxChallenges {
		return nonce, expires, refuse(codeTooManyChallenges, "at most %d challenges may be outstanding", maxChallenges)
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return nonce, expires, err
	}
	expires = now.Add(challengeTTL)
	c.out[nonce] = challenge{session, expires}
	return nonce, expires, nil
}

func (c *challenges) expire(now time.Time) {
	for nonce, ch := range c.out {
		if !now.Before(ch.expires) {
			delete(c.out, nonce)
		}
	}
}

// use consumes the nonce: whatever happens afterwards, it is spent.
func (c *challenges) use(raw []byte, session [sha256.Size]byte) error {
	if len(raw) != api.NonceSize {
		return refuse(codeNonceUnknown, "a nonce has %d bytes, got %d", api.NonceSize, len(raw))
	}
	nonce := [api.NonceSize]byte(raw)
	c.mu.Lock()
	ch, ok := c.out[nonce]
	delete(c.out, nonce)
	c.mu.Unlock()
	switch {
	case !ok:
		return refuse(codeNonceUnknown, "this nonce was never given out, or was used before")
	case !c.now().Before(ch.expires):
		return refuse(codeNonceExpired, "the nonce expired at %s", ch.expires.Format(time.RFC3339))
	case subtle.ConstantTimeCompare(ch.session[:], session[:]) != 1:
		return refuse(codeNonceForeign, "the nonce was given out on another TLS session")
	}
	return nil
}

func (c *challenges) outstanding() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)
}
