// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// Word is what the operators and the CDS say at the moment. Its methods are
// called for every connection, by many goroutines: they must not block.
type Word interface {
	Manifest() *policy.Signed
	DenyList() *policy.DenyList // nil denies nobody
	Roots() *x509.CertPool
}

// DialerConfig is what a Dialer is given. Fields without a default are required.
type DialerConfig struct {
	Word       Word
	Credential func() *Credential // of role ingress; nil, or a nil credential: every Dial is refused
	TunnelPort uint16             // of all nodes; default TunnelPort
	Limits     Limits             // those that concern a Dialer: Connections, ConnectionsPerPod, DialTimeout, Buffers, BuffersPerPod
	Now        func() time.Time
	Log        *slog.Logger
}

// Dialer makes connections from a machine with an identity of its own, of role
// ingress, to pods. Safe for concurrent use.
type Dialer struct {
	cfg DialerConfig
}

// NewDialer checks cfg and prepares a dialer. Run keeps it tidy.
func NewDialer(cfg DialerConfig) (*Dialer, error) {
	if cfg.Word == nil || cfg.Credential == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the way into the mesh: the configuration lacks a part")
	}
	return &Dialer{cfg: cfg}, nil
}

// Dial connects to the pod at to, which must prove that it is there and of a
// workload that may allows. may is asked after the other end was verified and
// before it hears of the connection, and again by Recheck while the connection
// lives; it must not block or call the Dialer.
//
// Every failure is a *Refusal, and no byte of the application has left then:
// another endpoint may always be tried.
func (d *Dialer) Dial(ctx context.Context, to resolve.Target, may func(workload string) policy.Decision) (*MeshConn, error) {
	return nil, refuse(reasonShutdown, "way into the mesh", "a dialer that connects", "one that is not finished")
}

// Recheck closes every tunnel, idle or busy, that the manifest, the deny list,
// the roots, the credential and may, asked again, no longer allow. Call it
// after any of them changed, and when the manifest's answers change with time.
func (d *Dialer) Recheck() {}

// Run keeps tunnels tidy until ctx ends, then ends what is left.
func (d *Dialer) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// MeshConn is a connection to a pod.
type MeshConn struct {
	*tunnel.Conn
	peer *ratls.Peer
}

// Peer is the pod at the other end, as its certificate proved it.
func (c *MeshConn) Peer() *ratls.Peer { return c.peer }
