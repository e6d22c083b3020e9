// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/policy"
)

// Credential is a certificate of a local pod with its key, and what is asked
// about it for every connection, worked out once. What it says never changes.
type Credential struct {
	TLS      *tls.Certificate
	ID       string // SPIFFE ID
	NotAfter time.Time
	Holder   policy.Holder // what the deny list knows it by

	proven atomic.Pointer[identity] // what a peer would learn from it; nil until somebody asked
}

// NewCredential takes a verified certificate into use.
func NewCredential(cert *tls.Certificate, peer *ratls.Peer) *Credential {
	return &Credential{TLS: cert, ID: peer.ID.String(), NotAfter: peer.NotAfter, Holder: peer.Holder()}
}

// usable returns the pod's credential while it has one that is neither over
// nor denied.
func (p *Proxy) usable(pod *LocalPod) (*Credential, *Refusal) {
	cred := pod.Credential()
	if cred == nil {
		return nil, refuse(reasonNotEnrolled, "pod certificate", "a certificate for "+pod.Name, "none yet")
	}
	if !p.cfg.Now().Before(cred.NotAfter) {
		return nil, refuse(reasonExpired, "pod certificate", "not after now", cred.NotAfter.UTC().Format(time.RFC3339))
	}
	if why := p.denied(&cred.Holder); why != nil {
		return nil, why
	}
	return cred, nil
}

// denied asks the deny list of this moment about one end of a connection.
func (p *Proxy) denied(h *policy.Holder) *Refusal {
	why := decided(p.cfg.Mesh.DenyList().Denies(*h))
	if why != nil {
		why.denied = true
	}
	return why
}
