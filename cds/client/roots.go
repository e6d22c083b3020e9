// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/cds/ca"
)

// Roots are the mesh CAs that peers must chain to: those that issue, and those
// that were replaced, for as long as a leaf of theirs can be valid. Safe for
// concurrent use.
type Roots struct {
	pool atomic.Pointer[x509.CertPool]

	mu      sync.Mutex
	current []*x509.Certificate
	retired []retiredRoot
}

// retiredRoot no longer issues, but leaves it issued may still be valid.
type retiredRoot struct {
	cert  *x509.Certificate
	until time.Time
}

// NewRoots returns no roots: nobody chains to them.
func NewRoots() *Roots {
	r := new(Roots)
	r.pool.Store(x509.NewCertPool())
	return r
}

// Pool returns the roots of this moment. It is shared: do not write to it.
func (r *Roots) Pool() *x509.CertPool { return r.pool.Load() }

// Set replaces the roots that issue, as a Credential has them.
func (r *Roots) Set(issuing []*x509.Certificate, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.current {
		if !slices.ContainsFunc(issuing, old.Equal) {
			r.retired = append(r.retired, retiredRoot{old, now.Add(ca.MaxLife)})
		}
	}
	r.current = issuing
	r.publish()
}

// Expire ends the acceptance of replaced roots whose last leaf must have
// expired, and reports whether there were any.
func (r *Roots) Expire(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.retired)
	r.retired = slices.DeleteFunc(r.retired, func(o retiredRoot) bool { return !now.Before(o.until) })
	if len(r.retired) == before {
		return false
	}
	r.publish()
	return true
}

// publish makes the pool that readers see. Callers hold mu.
func (r *Roots) publish() {
	pool := x509.NewCertPool()
	for _, c := range r.current {
		pool.AddCert(c)
	}
	for _, o := range r.retired {
		pool.AddCert(o.cert)
	}
	r.pool.Store(pool)
}
