// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// state is everything that outlives the process. Certificates and tries are by
// unit: a name with ACME, all names together otherwise.
type state struct {
	keys     []*tlsKey           // current first; a second one only during a rotation
	accounts map[string]*account // by directory: going back to one needs no new account
	certs    map[string]*record
	tries    map[string]*tries
}

// Units that are not names.
const (
	unitAccount = "(account)"
	unitCSR     = "(csr)"
	unitSelf    = "(self-signed)"
)

type tlsKey struct {
	private *ecdsa.PrivateKey
	made    time.Time
	id      [32]byte // SHA-256 of the SubjectPublicKeyInfo
}

type account struct {
	private *ecdsa.PrivateKey
	uri     string // empty: not registered yet
}

// record is a certificate with its issuers.
type record struct {
	source string
	key    *tlsKey
	leaf   *x509.Certificate
	tls    *tls.Certificate
}

func newState() *state {
	return &state{accounts: map[string]*account{}, certs: map[string]*record{}, tries: map[string]*tries{}}
}

func newKey(now time.Time) (*tlsKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a TLS key: %w", err)
	}
	return asTLSKey(private, now)
}

func asTLSKey(private *ecdsa.PrivateKey, made time.Time) (*tlsKey, error) {
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("naming a TLS key: %w", err)
	}
	return &tlsKey{private: private, made: made, id: sha256.Sum256(spki)}, nil
}

func (k *tlsKey) hex() string { return hex.EncodeToString(k.id[:]) }

// keyOf finds the key that a certificate is for, nil if it is not one of ours.
func (s *state) keyOf(leaf *x509.Certificate) *tlsKey {
	id := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for _, k := range s.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

func newRecord(source string, key *tlsKey, leaf *x509.Certificate, chain [][]byte) *record {
	return &record{
		source: source, key: key, leaf: leaf,
		tls: &tls.Certificate{Certificate: chain, PrivateKey: key.private, Leaf: leaf},
	}
}

// read makes a record of a chain that was kept.
func (s *state) read(source string, chain [][]byte) (*record, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("a chain of %d certificates", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	key := s.keyOf(leaf)
	if key == nil {
		return nil, errors.New("a certificate for a key that is not here")
	}
	return newRecord(source, key, leaf, chain), nil
}

func (s *state) triesOf(unit string) *tries {
	t := s.tries[unit]
	if t == nil {
		t = &tries{}
		s.tries[unit] = t
	}
	return t
}

// best says which certificate each DNS name would be answered with: those of
// the configured source first, then those that have not expired, then the youngest.
func (s *state) best(now time.Time, source string) map[string]*record {
	best := map[string]*record{}
	for _, r := range s.certs {
		for _, name := range r.leaf.DNSNames {
			if best[name] == nil || r.better(best[name], now, source) {
				best[name] = r
			}
		}
	}
	return best
}

func (r *record) better(than *record, now time.Time, source string) bool {
	if a, b := r.source == source, than.source == source; a != b {
		return a
	}
	if a, b := now.After(r.leaf.NotAfter), now.After(than.leaf.NotAfter); a != b {
		return b
	}
	return r.leaf.NotBefore.After(than.leaf.NotBefore)
}

// prune forgets certificates that serve nobody and are of no use later, the
// former key once no certificate is for it, and tries of long ago. It reports
// whether anything went.
func (s *state) prune(now time.Time, source string, names []string) (changed bool) {
	serving := map[*record]bool{}
	best := s.best(now, source)
	for _, name := range names {
		if r := pick(best, name); r != nil {
			serving[r] = true
		}
	}
	used := map[*tlsKey]bool{s.keys[0]: true}
	for unit, r := range s.certs {
		if !serving[r] && (now.After(r.leaf.NotAfter) || r.key != s.keys[0] || r.source != source) {
			delete(s.certs, unit)
			changed = true
			continue
		}
		used[r.key] = true
	}
	if n := len(s.keys); !used[s.keys[n-1]] {
		s.keys = s.keys[:n-1]
		changed = true
	}
	for unit, t := range s.tries {
		if !strings.HasPrefix(unit, "(") && !slices.Contains(names, unit) && t.idle(now) {
			delete(s.tries, unit)
			changed = true
		}
	}
	return changed
}

// pick finds what a name is answered with: its own, or the wildcard above it.
func pick(best map[string]*record, name string) *record {
	if r := best[name]; r != nil || wildcard(name) {
		return r
	}
	return best["*"+parent(name)]
}
