// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/cds/ca"
)

// roots are the mesh CAs. One that was replaced is accepted for as long as a
// leaf of its can be valid.
type roots struct {
	pool atomic.Pointer[x509.CertPool]

	mu      sync.Mutex
	current []*x509.Certificate
	retired []retired
}

type retired struct {
	cert  *x509.Certificate
	until time.Time
}

func (r *roots) set(certs []*x509.Certificate, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.current {
		if !slices.ContainsFunc(certs, old.Equal) {
			r.retired = append(r.retired, retired{old, now.Add(ca.MaxLife)})
		}
	}
	r.current = certs
	r.publish()
}

// expire ends the acceptance of retired roots, and reports whether there were
// any to end.
func (r *roots) expire(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.retired)
	r.retired = slices.DeleteFunc(r.retired, func(o retired) bool { return !now.Before(o.until) })
	if len(r.retired) == before {
		return false
	}
	r.publish()
	return true
}

// publish needs r.mu.
func (r *roots) publish() {
	pool := x509.NewCertPool()
	for _, c := range r.current {
		pool.AddCert(c)
	}
	for _, o := range r.retired {
		pool.AddCert(o.cert)
	}
	r.pool.Store(pool)
}
