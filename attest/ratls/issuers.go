// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"time"

	"github.com/c8s-dev/c8s/attest/internal/lru"
)

// maxIssuers is how many are remembered: a few replicas have two each in a day.
const maxIssuers = 64

// Issuers remembers which intermediates a root has signed, so that verifying a
// peer costs one signature less. What depends on the time is never remembered.
// It is safe for concurrent use.
type Issuers struct{ known *lru.Cache[issuer] }

// NewIssuers returns a memory that is empty.
func NewIssuers() *Issuers { return &Issuers{known: lru.New[issuer](maxIssuers)} }

// issuer is an intermediate that was verified as the middle of a chain of three.
type issuer struct {
	itself *x509.CertPool // holds the intermediate alone
	root   *x509.Certificate
	roots  *x509.CertPool // under which it was verified
}

// VerifyPeer is the function VerifyPeer, with the same results.
func (i *Issuers) VerifyPeer(chain []*x509.Certificate, roots *x509.CertPool, trustDomain string, now time.Time) (*Peer, error) {
	return verifyPeer(chain, roots, trustDomain, now, i.verifyChain)
}

func (i *Issuers) verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	if len(chain) != 2 {
		return verifyChain(chain, roots, now)
	}
	key := lru.Key(sha256.Sum256(chain[1].Raw))
	if known, ok := i.known.Get(key); ok && known.roots.Equal(roots) && isWithin(known.root, now) {
		// x509 looks at the dates and constraints of the last in the chain too.
		verified, err := verifyChain(chain[:1], known.itself, now)
		return append(verified, known.root), err
	}
	verified, err := verifyChain(chain, roots, now)
	if err != nil {
		return nil, err
	}
	if len(verified) == 3 && bytes.Equal(verified[1].Raw, chain[1].Raw) && sameConstraints(verified[1], verified[2]) {
		itself := x509.NewCertPool()
		itself.AddCert(verified[1])
		i.known.Put(key, issuer{itself: itself, root: verified[2], roots: roots.Clone()})
	}
	return verified, nil
}

func isWithin(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// sameConstraints reports that the leaf need not be held against the root's
// constraints, because the intermediate has the very same.
func sameConstraints(intermediate, root *x509.Certificate) bool {
	return bytes.Equal(nameConstraints(intermediate), nameConstraints(root))
}

func nameConstraints(c *x509.Certificate) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30}) { // RFC 5280, 4.2.1.10
			return e.Value
		}
	}
	return nil
}
