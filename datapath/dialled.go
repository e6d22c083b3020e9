// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// dialled is who the two ends of a Dialer's tunnel are.
type dialled struct {
	self *Credential
	peer *identity
	may  atomic.Pointer[func(workload string) policy.Decision] // of the connection it carries
}

// dialTunnel makes a tunnel to the pod at key.Dst, over the daemon at key.Node.
func (d *Dialer) dialTunnel(ctx context.Context, key tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, error) {
	t, meta, why := d.handshake(ctx, key)
	if why != nil {
		return nil, tunnel.Meta{}, why
	}
	return t, meta, nil
}

func (d *Dialer) handshake(ctx context.Context, key tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, *Refusal) {
	self, why := d.self()
	if why != nil {
		return nil, tunnel.Meta{}, why
	}
	if self.Holder.Serial != key.Owner {
		return nil, tunnel.Meta{}, refuse(reasonNotEnrolled, "ingress certificate", "serial "+key.Owner, self.Holder.Serial+", which has taken its place")
	}
	conn, err := dialNode(ctx, netip.AddrPortFrom(key.Node, d.cfg.TunnelPort))
	if err != nil {
		code := reasonNodeUnreachable
		if ctx.Err() != nil {
			code = reasonNodeTimeout
		}
		return nil, tunnel.Meta{}, refuseErr(code, err).aboutPeer()
	}
	m := &dialled{self: self}
	t, err := tunnel.Dialed(ctx, conn, d.clientTLS(self.TLS, key.Dst, &m.peer), &d.bufs)
	if err != nil {
		return nil, tunnel.Meta{}, asRefusal(err).aboutPeer()
	}
	t.Charge(key.Dst.String())
	return t, tunnel.Meta{NotAfter: earlier(self.NotAfter, m.peer.NotAfter), Peer: m}, nil
}

// judge asks about a tunnel that exists whether it may carry a connection as h
// is. What is refused about the pod may be otherwise with another.
func (d *Dialer) judge(m *dialled, h tunnel.Header) *Refusal {
	if why := d.denied(&m.self.Holder); why != nil {
		return why
	}
	why := d.acceptPeer(m.peer)
	if why == nil {
		why = d.wanted(m, h)
	}
	return why.aboutPeer()
}

// wanted asks whose connection it is, and the manifest, about the pod that the
// certificate names.
func (d *Dialer) wanted(m *dialled, h tunnel.Header) *Refusal {
	may := m.may.Load()
	if may == nil {
		return refuse(reasonNoRoute, "routes", "somebody whose connection it is", "nobody")
	}
	if why := decided((*may)(m.peer.facts.Workload)); why != nil {
		return why
	}
	return d.ingressReaches(m.peer.facts.Workload, h.Dst.Port())
}

// over says for Recheck why a tunnel must close, if it must.
func (d *Dialer) over(meta tunnel.Meta, t *tunnel.Tunnel) *Refusal {
	if _, why := d.self(); why != nil {
		return why
	}
	m := meta.Peer.(*dialled)
	if why := d.gone(m.self, m.peer); why != nil {
		return why
	}
	if h, busy := t.Current(); busy && m.may.Load() != nil { // nil: it has just ended
		return d.wanted(m, h)
	}
	return nil
}

// dialRefusal is why there is no tunnel in time.
func dialRefusal(err error) *Refusal {
	why := asRefusal(err)
	if errors.Is(err, context.DeadlineExceeded) && !why.elsewhere { // the dial goes on, but nobody waits for it
		why.aboutPeer()
	}
	return why
}

// MeshConn is a connection to a pod. Where the other node refused it after all,
// Read and Write return a *Refusal: no byte reached an application then. Any
// other end that was not in order is a *tunnel.ConnError.
type MeshConn struct {
	*tunnel.Conn
	peer *ratls.Peer
}

// Peer is the pod at the other end, as its certificate proved it.
func (c *MeshConn) Peer() *ratls.Peer { return c.peer }

// Read implements net.Conn.
func (c *MeshConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, orRefusal(err)
}

// Write implements net.Conn.
func (c *MeshConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, orRefusal(err)
}

// orRefusal makes the other node's refusal of a connection one of Dial's.
func orRefusal(err error) error {
	if err == nil {
		return nil
	}
	var end *tunnel.ConnError
	if !errors.As(err, &end) || !end.Refused {
		return err
	}
	why := refuse(end.Reason.String(), "the other node's answer", "a connection", "a refusal; its flow records say why")
	why.cause, why.elsewhere = err, end.Reason != tunnel.ReasonSourceMismatch
	return why
}
