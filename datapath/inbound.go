// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// inboundSession is one accepted tunnel: which pod it was opened to, and by
// whom. It is written by the handshake and only read afterwards.
type inboundSession struct {
	from netip.Addr // of the host that opened it
	dst  netip.Addr // from the server name
	pod  *LocalPod
	self *Credential
	peer *identity
}

// session prepares the TLS side of one incoming connection. The certificate
// is that of the pod the server name asks for; without one there is no
// handshake.
func (p *Proxy) session() (*tls.Config, any) {
	s := &inboundSession{}
	cert := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		addr, err := parseServerName(hello.ServerName)
		if err != nil {
			return nil, refuseErr(reasonDestMismatch, err)
		}
		pod, ok := p.cfg.Mesh.Pod(addr)
		if !ok {
			return nil, refuse(reasonDestNotEnrolled, "local pods", "the address of an enrolled pod of this node", addr.String())
		}
		cred, why := p.usable(pod)
		if why != nil {
			return nil, why
		}
		s.from, s.dst, s.pod, s.self = unmap(hello.Conn.RemoteAddr()).Addr(), addr, pod, cred
		return cred.TLS, nil
	}
	verify := func(cs tls.ConnectionState) error {
		if why := checkProtocol(&cs); why != nil {
			return why
		}
		peer, why := p.identify(cs.PeerCertificates, opens)
		if why != nil {
			return why
		}
		s.peer = peer
		return nil
	}
	cfg := ratls.ServerConfig(cert, verify)
	cfg.NextProtos = []string{alpn}
	return cfg, s
}

// ownerOf is whose memory an accepted tunnel takes: that of the pod it leads to.
func ownerOf(session any) string { return session.(*inboundSession).pod.UID }

// handshakeRefused records a tunnel that never was. The other end's pods are
// not known, only the daemon's address; probes that send no TLS are not worth
// a record.
func (p *Proxy) handshakeRefused(remote net.Addr, err error) {
	var why *Refusal
	if !errors.As(err, &why) {
		p.cfg.Log.Debug("incoming handshake failed", "remote", remote, "err", err)
		return
	}
	p.refusedStranger(flow.Record{
		Direction: flow.Ingress, Protocol: policy.ProtocolTCP, Src: unmap(remote), Node: p.cfg.NodeName,
		Dst: netip.AddrPortFrom(p.cfg.NodeAddr, p.cfg.TunnelPort),
	}, why)
}

// accept answers an OPEN: judge it, then connect to the local pod.
func (p *Proxy) accept(ctx context.Context, t *tunnel.Tunnel, h tunnel.Header) (tunnel.App, func(tunnel.Result), tunnel.Reason) {
	s := t.Session().(*inboundSession)
	rec := flow.Record{
		Direction: flow.Ingress, Protocol: resolve.Protocol(h.Proto).String(), Src: h.Src, Dst: h.Dst, Node: p.cfg.NodeName, Pod: s.pod.Name,
		SrcID: s.peer.id, DstID: s.self.ID, SrcWorkload: s.peer.facts.Workload, DstWorkload: s.pod.Workload,
	}
	code, why := p.judge(s, h)
	if why == nil && p.refusing.Load() {
		code, why = tunnel.ReasonShutdown, shuttingDown()
	}
	if why != nil {
		p.refused(rec, why)
		return nil, nil, code
	}
	rec.Rule = p.ingressRule(s, h)
	if h.Proto == tunnel.ProtoUDP {
		return p.acceptPackets(ctx, t, h, rec)
	}
	if !p.in.take(s.pod.UID) {
		p.refused(rec, refuse(reasonTooMany, "connection limit", "fewer connections", "the limit of the pod or the node is reached"))
		return nil, nil, tunnel.ReasonTooMany
	}
	app, err := DialPod(ctx, h.Src, h.Dst, p.cfg.Marks, p.cfg.Limits.DialTimeout)
	if err != nil {
		p.in.give(s.pod.UID)
		code := dialReason(err)
		p.refused(rec, refuseErr(code.String(), err))
		return nil, nil, code
	}
	began := p.cfg.Now()
	rec.Time, rec.Verdict = began, flow.Allowed
	p.cfg.Flows.Add(rec)
	p.streams.Add(1)
	done := p.watch(t)
	return app, func(res tunnel.Result) {
		done()
		p.in.give(s.pod.UID)
		p.ended(rec, res, began, res.Received, res.Sent)
		p.sent.Add(res.Sent)
		p.received.Add(res.Received)
	}, tunnel.ReasonNone
}

// judge decides an OPEN by the manifest and the pods of this moment.
func (p *Proxy) judge(s *inboundSession, h tunnel.Header) (tunnel.Reason, *Refusal) {
	if why := p.openedFrom(s, h.Src.Addr()); why != nil {
		return tunnel.ReasonSourceMismatch, why
	}
	if h.Dst.Addr() != s.dst {
		return tunnel.ReasonDestMismatch, refuse(reasonDestMismatch, "pod the tunnel was opened to", s.dst.String(), h.Dst.Addr().String())
	}
	if why := p.current(s); why != nil {
		return why.wire(tunnel.ReasonNotEnrolled), why
	}
	if why := p.acceptPair(s.self, s.peer); why != nil {
		return why.wire(tunnel.ReasonNotAllowed), why
	}
	return tunnel.ReasonNotAllowed, p.mayOpen(s, h)
}

// current checks that the tunnel's pod is still the one at its address.
func (p *Proxy) current(s *inboundSession) *Refusal {
	pod, ok := p.cfg.Mesh.Pod(s.dst)
	if !ok || pod.UID != s.pod.UID || pod.Workload != s.pod.Workload {
		return refuse(reasonDestNotEnrolled, "local pods", "the pod "+s.pod.Name, "it is gone")
	}
	_, why := p.usable(pod)
	return why
}

func (p *Proxy) sessionGone(s *inboundSession) *Refusal {
	if why := p.current(s); why != nil {
		return why
	}
	return p.gone(s.self, s.peer)
}

// inboundGone says for Recheck why an accepted tunnel must close, if it must.
func (p *Proxy) inboundGone(t *tunnel.Tunnel) *Refusal {
	s := t.Session().(*inboundSession)
	if why := p.sessionGone(s); why != nil {
		return why
	}
	if h, busy := t.Current(); busy {
		return p.mayOpen(s, h)
	}
	return nil
}
