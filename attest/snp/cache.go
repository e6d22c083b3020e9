// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/c8s-dev/c8s/attest/internal/lru"
)

// Cache remembers chains whose signatures, names and uses were found good, so
// that three RSA checks are made once for a machine and not for every report.
// It holds nothing that time can change: dates and revocation are the caller's
// to check, every time. It is safe for concurrent use. The zero value is not
// usable: call NewCache.
type Cache struct {
	chains *lru.Cache[*Chain]
	crls   *lru.Cache[*CRL]
}

// NewCache returns a cache of at most limit chains, about 20 KB each; limit
// must be positive.
func NewCache(limit int) *Cache {
	return &Cache{chains: lru.New[*Chain](limit), crls: lru.New[*CRL](len(Products()) * crlsPerRoot)}
}

// Chain parses certs and makes Chain.Verify's checks, unless it has done so with
// the same bytes before. Callers share the result and must not change it.
func (c *Cache) Chain(certs [][]byte) (*Chain, error) {
	if err := capCertificates(certs); err != nil {
		return nil, err
	}
	key := chainKey(certs)
	if chain, ok := c.chains.Get(key); ok {
		return chain, nil
	}
	chain, err := ParseChain(certs)
	if err != nil {
		return nil, err
	}
	if err := chain.Verify(); err != nil {
		return nil, err
	}
	c.chains.Put(key, chain)
	return chain, nil
}

// chainKey puts its length before each certificate, so that no other way to
// cut the same bytes into certificates has the same key.
func chainKey(certs [][]byte) lru.Key {
	h := sha256.New()
	var length [8]byte
	for _, der := range certs {
		binary.BigEndian.PutUint64(length[:], uint64(len(der)))
		h.Write(length[:])
		h.Write(der)
	}
	return lru.Key(h.Sum(nil))
}

// CRL reads a revocation list and verifies that it is of the chain's root. The
// list is shared: do not write to it. What it says, and when, is
// CheckRevocation's question.
func (c *Cache) CRL(der []byte, chain *Chain) (*CRL, error) {
	key := chainKey([][]byte{chain.Root.Raw, der})
	if crl, ok := c.crls.Get(key); ok {
		return crl, nil
	}
	crl, err := ParseCRL(der)
	if err != nil {
		return nil, err
	}
	if err := chain.checkIssued(crl.list); err != nil {
		return nil, err
	}
	crl.verified = chain.Root
	c.crls.Put(key, crl)
	return crl, nil
}

// crlsPerRoot leaves room for a list and its successors.
const crlsPerRoot = 4
