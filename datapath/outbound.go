// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// outbound carries one connection of a local pod. A refusal reaches the
// application as a reset at once.
func (p *Proxy) outbound(ctx context.Context, app *net.TCPConn, self netip.AddrPort) {
	src, dst := unmap(app.RemoteAddr()), p.origDst(app)
	rec := flow.Record{Direction: flow.Egress, Protocol: policy.ProtocolTCP, Src: src, Dst: dst, Node: p.cfg.NodeName}
	pod, why := p.source(src, dst, self)
	if why == nil && p.refusing.Load() {
		why = shuttingDown()
	}
	if pod != nil {
		rec.Pod, rec.SrcWorkload = pod.Name, pod.Workload
	}
	switch {
	case why != nil:
	case p.asksNode(resolve.Query{Protocol: resolve.TCP, Src: src.Addr(), Dst: dst}):
		why = p.answerStream(ctx, app, pod, &rec)
	default:
		why = p.carry(ctx, app, pod, &rec)
	}
	if why != nil {
		p.refused(rec, why) // first: whoever sees the reset finds the reason
		reset(app)
	}
}

// source finds the pod behind src.
func (p *Proxy) source(src, dst, self netip.AddrPort) (*LocalPod, *Refusal) {
	if dst == self {
		return nil, refuse(reasonDirect, "transparent listener", "a connection steered here", "one made to the listener itself")
	}
	pod, ok := p.cfg.Mesh.Pod(src.Addr())
	if !ok {
		return nil, refuse(reasonUnknownSource, "local pods", "the address of an enrolled pod of this node", src.Addr().String())
	}
	return pod, nil
}

// carry returns why the connection may not be, or nil when it has been.
func (p *Proxy) carry(ctx context.Context, app *net.TCPConn, pod *LocalPod, rec *flow.Record) *Refusal {
	if !p.out.take(pod.UID) {
		return refuse(reasonTooMany, "connection limit", "fewer connections", "the limit of the pod or the node is reached")
	}
	defer p.out.give(pod.UID)
	if _, why := p.usable(pod); why != nil {
		return why
	}
	lease, dst, why := p.reach(ctx, pod, resolve.TCP, rec)
	if why != nil && why.verdict.MeansNoPod() {
		return p.passThrough(ctx, app, pod, rec, why)
	}
	if why != nil {
		return why
	}
	if lease == nil {
		return p.carryLocal(ctx, app, pod, dst, rec)
	}
	defer p.pool.Put(lease)
	p.relay(app, lease, dst, *rec)
	return nil
}

func (p *Proxy) relay(app *net.TCPConn, lease *tunnel.Lease, dst netip.AddrPort, rec flow.Record) {
	began := p.cfg.Now()
	rec.Time, rec.Verdict = began, flow.Allowed
	p.cfg.Flows.Add(rec)
	p.streams.Add(1)
	done := p.watch(lease.Tunnel)
	res := lease.Tunnel.Relay(app, tunnel.Header{Proto: tunnel.ProtoTCP, Src: rec.Src, Dst: dst})
	done()
	p.ended(rec, res, began, res.Sent, res.Received)
	p.sent.Add(res.Sent)
	p.received.Add(res.Received)
}

// outboundPeer is who the two ends of a dialled tunnel are.
type outboundPeer struct {
	peer *identity
	self *Credential
}

// dialTunnel makes a tunnel from the pod behind key to the pod at key.Dst,
// over the daemon at key.Node.
func (p *Proxy) dialTunnel(ctx context.Context, key tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, error) {
	t, meta, why := p.handshake(ctx, key)
	if why != nil {
		p.cfg.Log.Debug("dialling a tunnel failed", "src", key.Src, "dst", key.Dst, "reason", why.Code, "err", why)
		return nil, meta, why
	}
	return t, meta, nil
}

func (p *Proxy) handshake(ctx context.Context, key tunnel.Key) (*tunnel.Tunnel, tunnel.Meta, *Refusal) {
	pod, ok := p.cfg.Mesh.Pod(key.Src)
	if !ok || pod.UID != key.Owner {
		return nil, tunnel.Meta{}, refuse(reasonUnknownSource, "local pods", "the pod "+key.Owner, "it is gone")
	}
	cred, why := p.usable(pod)
	if why != nil {
		return nil, tunnel.Meta{}, why
	}
	conn, err := dialNode(ctx, netip.AddrPortFrom(key.Node, p.cfg.TunnelPort))
	if err != nil {
		code := reasonNodeUnreachable
		if ctx.Err() != nil {
			code = reasonNodeTimeout
		}
		why := refuseErr(code, err).aboutPeer()
		if p.avoid.failed(avoidKey{node: key.Node}, why) {
			p.cfg.Log.Warn("a node does not answer; Services pass its pods over for a while", "node", key.Node, "reason", code, "err", err)
		}
		return nil, tunnel.Meta{}, why
	}
	meta := &outboundPeer{self: cred}
	t, err := tunnel.Dialed(ctx, conn, p.clientTLS(cred.TLS, key.Dst, &meta.peer), &p.bufs)
	if err != nil {
		return nil, tunnel.Meta{}, asRefusal(err).aboutPeer()
	}
	t.Charge(key.Owner)
	return t, tunnel.Meta{NotAfter: earlier(cred.NotAfter, meta.peer.NotAfter), Peer: meta}, nil
}

// outboundGone says for Recheck why a dialled tunnel must close, if it must.
func (p *Proxy) outboundGone(key tunnel.Key, meta tunnel.Meta, t *tunnel.Tunnel) *Refusal {
	pod, ok := p.cfg.Mesh.Pod(key.Src)
	if !ok || pod.UID != key.Owner {
		return refuse(reasonUnknownSource, "local pods", "the pod "+key.Owner, "it is gone")
	}
	if _, why := p.usable(pod); why != nil {
		return why
	}
	m := meta.Peer.(*outboundPeer)
	if why := p.gone(m.self, m.peer); why != nil {
		return why
	}
	if h, busy := t.Current(); busy {
		return p.allowed(pod.Workload, m.peer.facts.Workload, h)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
