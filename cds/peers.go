// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"

	"github.com/c8s-dev/c8s/attest/ratls"
)

// maxPeers bounds the callers whose certificates are remembered.
const maxPeers = 8192

// peers remembers what was verified of callers' certificates during the
// handshake, since every call on the connection asks. What depends on the time
// or the policy is not remembered: each call judges that anew.
type peers struct {
	issuers *ratls.Issuers

	mu  sync.Mutex
	all map[[sha256.Size]byte]*ratls.Peer
}

func newPeers() *peers {
	return &peers{issuers: ratls.NewIssuers(), all: map[[sha256.Size]byte]*ratls.Peer{}}
}

// verify checks a chain and remembers it.
func (p *peers) verify(c *core, chain []*x509.Certificate) (*ratls.Peer, error) {
	peer, err := p.issuers.VerifyPeer(chain, c.roots, c.trustDomain, c.clock.Now())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxPeers {
		clear(p.all)
	}
	p.all[sha256.Sum256(chain[0].Raw)] = peer
	return peer, nil
}

// of returns the verified certificate a caller showed, nil for none.
func (p *peers) of(c *core, s session) (*ratls.Peer, error) {
	if s.tls == nil || len(s.tls.PeerCertificates) == 0 {
		return nil, nil
	}
	p.mu.Lock()
	peer := p.all[sha256.Sum256(s.tls.PeerCertificates[0].Raw)]
	p.mu.Unlock()
	if peer != nil {
		return peer, nil
	}
	return p.verify(c, s.tls.PeerCertificates)
}
