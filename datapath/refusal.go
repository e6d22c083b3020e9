// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// Reasons of refusals that the datapath itself decides. Others are codes of
// package policy and reasons of package tunnel; docs/datapath.md lists all.
const (
	reasonUnknownSource   = "unknown-source"
	reasonDirect          = "listener-direct"
	reasonTooMany         = "too-many-connections"
	reasonNotEnrolled     = "not-enrolled"
	reasonExpired         = "certificate-expired"
	reasonNoRoute         = "no-route"
	reasonNoEndpoints     = "no-endpoints"
	reasonNoServicePort   = "no-service-port"
	reasonHostAddress     = "host-address"
	reasonExternalAddress = "external-address"
	reasonNoManifest      = "no-manifest"
	reasonNodeUnreachable = "node-unreachable"
	reasonNodeTimeout     = "node-timeout"
	reasonHandshake       = "handshake-failed"
	reasonPeerRefused     = "peer-refused-certificate"
	reasonPeerCertificate = "peer-certificate"
	reasonPeerAddress     = "peer-address"
	reasonPeerRole        = "peer-role"
	reasonProtocol        = "alpn"
	reasonShutdown        = "shutdown"
	reasonDestNotEnrolled = "destination-not-enrolled"
	reasonSourceMismatch  = "source-mismatch"
	reasonDestMismatch    = "destination-mismatch"
	reasonTooBig          = "datagram-too-big"
	reasonFlowSocket      = "flow-socket"
	reasonTunnelLost      = "tunnel-lost"
	reasonTooManyDials    = "too-many-dials"
	reasonClientAddress   = "client-address"
	reasonSameNode        = "same-node"
	reasonIngressProtocol = "ingress-protocol"
	reasonIngressRole     = "not-an-ingress"
	reasonNoSource        = "no-source-address"
)

// Refusal is why a connection does not happen, or may not go on.
type Refusal struct {
	policy.Decision
	cause     error
	denied    bool // by the deny list
	elsewhere bool // it is about the other end: another endpoint of the Service may do better
	judged    bool // and a verdict about its identity, not a failure to hear of it

	verdict resolve.Verdict // of the routes, where they decided
}

func (r *Refusal) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("%s: %v", r.Code, r.cause)
	}
	return r.Decision.Error()
}

func (r *Refusal) Unwrap() error { return r.cause }

// Elsewhere reports whether it is about the other end, so that another endpoint
// of the same Service may do better.
func (r *Refusal) Elsewhere() bool { return r.elsewhere }

// aboutPeer says that r, which is new, is about the other end, unless it cannot
// be.
func (r *Refusal) aboutPeer() *Refusal {
	if r == nil {
		return nil
	}
	switch r.Code {
	case reasonShutdown, reasonNoManifest, reasonTooManyDials:
	case reasonNodeUnreachable, reasonNodeTimeout, reasonHandshake, reasonPeerRefused, reasonProtocol:
		r.elsewhere = true
	default:
		r.elsewhere, r.judged = true, true
	}
	return r
}

// ofNode reports whether the whole node is at fault.
func (r *Refusal) ofNode() bool {
	return r.Code == reasonNodeUnreachable || r.Code == reasonNodeTimeout
}

// ending is how a tunnel ends that was refused after the fact; nil for none.
func (r *Refusal) ending() *tunnel.Ending {
	if r == nil {
		return nil
	}
	return &tunnel.Ending{Reason: r.wire(tunnel.ReasonPolicyChanged), Why: r}
}

// wire is what the other side is told: usual, except for denials.
func (r *Refusal) wire(usual tunnel.Reason) tunnel.Reason {
	if r != nil && r.denied {
		return tunnel.ReasonDenied
	}
	return usual
}

func refuse(code, rule, expected, actual string) *Refusal {
	return &Refusal{Decision: policy.Decision{Code: policy.Code(code), Rule: rule, Expected: expected, Actual: actual}}
}

func refuseErr(code string, err error) *Refusal {
	return &Refusal{Decision: policy.Decision{Code: policy.Code(code), Actual: err.Error()}, cause: err}
}

// decided turns a manifest's decision into a refusal, or nil.
func decided(d policy.Decision) *Refusal {
	if d.Allowed {
		return nil
	}
	if d.Code == "" {
		d.Code = policy.CodeUndecided
	}
	return &Refusal{Decision: d}
}

// asRefusal finds out why getting a tunnel failed.
func asRefusal(err error) *Refusal {
	var r *Refusal
	var opErr *net.OpError
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, tunnel.ErrDialLimit):
		return refuseErr(reasonTooManyDials, err)
	case errors.Is(err, tunnel.ErrPoolClosed), errors.Is(err, context.Canceled):
		return refuseErr(reasonShutdown, err)
	case errors.As(err, &opErr) && opErr.Op == "remote error": // a TLS alert
		return refuseErr(reasonPeerRefused, err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &opErr) && opErr.Timeout():
		return refuseErr(reasonNodeTimeout, err)
	}
	return refuseErr(reasonHandshake, err)
}

// dialReason is what the far side is told when the local pod cannot be
// reached.
func dialReason(err error) tunnel.Reason {
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return tunnel.ReasonConnectionRefused
	case errors.As(err, &netErr) && netErr.Timeout():
		return tunnel.ReasonDialTimeout
	}
	return tunnel.ReasonUnreachable
}
