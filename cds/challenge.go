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
	// maxPerHost keeps one host from taking every place.
	maxPerHost = maxChallenges / 8
	// sweepEvery bounds how often expired nonces are looked for.
	sweepEvery = time.Second
)

// challenges holds the nonces that were given out and not used yet. A nonce
// is good once, for challengeTTL, and on the TLS session it was given on.
type challenges struct {
	now func() time.Time

	mu    sync.Mutex
	out   map[[api.NonceSize]byte]challenge
	hosts map[string]int // outstanding nonces of each host
	swept time.Time
}

type challenge struct {
	session [sha256.Size]byte
	host    string
	expires time.Time
}

func newChallenges(now func() time.Time) *challenges {
	return &challenges{now: now, out: map[[api.NonceSize]byte]challenge{}, hosts: map[string]int{}}
}

// issue returns a fresh nonce for the session, which is the host's.
func (c *challenges) issue(session [sha256.Size]byte, host string) (nonce [api.NonceSize]byte, expires time.Time, err error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full(host) {
		c.sweep(now)
	}
	if c.full(host) {
		return nonce, expires, refuse(codeTooManyChallenges, "at most %d challenges may be outstanding, %d of one host", maxChallenges, maxPerHost)
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return nonce, expires, err
	}
	expires = now.Add(challengeTTL)
	c.out[nonce] = challenge{session, host, expires}
	c.hosts[host]++
	return nonce, expires, nil
}

func (c *challenges) full(host string) bool {
	return len(c.out) >= maxChallenges || c.hosts[host] >= maxPerHost
}

// sweep forgets nonces that expired. Until a place is needed they are kept, so
// that who uses one late is told so.
func (c *challenges) sweep(now time.Time) {
	if since := now.Sub(c.swept); since >= 0 && since < sweepEvery {
		return
	}
	c.swept = now
	for nonce, ch := range c.out {
		if !now.Before(ch.expires) {
			c.forget(nonce, ch)
		}
	}
}

func (c *challenges) forget(nonce [api.NonceSize]byte, ch challenge) {
	delete(c.out, nonce)
	if c.hosts[ch.host]--; c.hosts[ch.host] <= 0 {
		delete(c.hosts, ch.host)
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
	if ok {
		c.forget(nonce, ch)
	}
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
	now, n := c.now(), 0
	for _, ch := range c.out {
		if now.Before(ch.expires) {
			n++
		}
	}
	return n
}
