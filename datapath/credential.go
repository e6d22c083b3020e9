// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/policy"
)

// Credential is a certificate of this side, a local pod's or an ingress's own,
// with its key, and what is asked about it for every connection, worked out
// once. What it says never changes.
type Credential struct {
	TLS      *tls.Certificate
	ID       string // SPIFFE ID
	Role     policy.Role
	NotAfter time.Time
	Holder   policy.Holder // what the deny list knows it by

	proven atomic.Pointer[identity] // what a peer would learn from it; nil until somebody asked
}

// NewCredential takes a verified certificate into use.
func NewCredential(cert *tls.Certificate, peer *ratls.Peer) *Credential {
	return &Credential{TLS: cert, ID: peer.ID.String(), Role: peer.Claims.Role, NotAfter: peer.NotAfter, Holder: peer.Holder()}
}

// usable returns the pod's credential while it has one that is neither over
// nor denied.
func (p *Proxy) usable(pod *LocalPod) (*Credential, *Refusal) {
	const rule = "pod certificate"
	cred := pod.Credential()
	if cred == nil {
		return nil, refuse(reasonNotEnrolled, rule, "a certificate for "+pod.Name, "none yet")
	}
	if why := p.inForce(cred, rule); why != nil {
		return nil, why
	}
	return cred, nil
}
