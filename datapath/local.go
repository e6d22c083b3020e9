// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// pathLocal is Record.Path of connections within the node, without encryption.
const pathLocal = "local"

// sameNode reports whether target is a pod of this node and the manifest says
// that such connections need no encryption. Both identities are verified all
// the same.
func (p *Proxy) sameNode(target resolve.Target) bool {
	if target.Node != p.cfg.NodeAddr || p.localAllowed() != nil {
		return false
	}
	_, here := p.cfg.Mesh.Pod(target.Pod.Addr())
	return here
}

func (p *Proxy) localAllowed() *Refusal {
	manifest, why := p.manifest()
	if why != nil {
		return why
	}
	if manifest.SameNode != policy.SameNodeLocal {
		return refuse(reasonSameNode, "sameNode", policy.SameNodeLocal, fmt.Sprintf("%q", manifest.SameNode))
	}
	return nil
}

// end is one of the two pods of a connection within the node.
type end struct {
	pod  *LocalPod
	addr netip.Addr
	self *Credential
	id   *identity
}

// endOf verifies a local pod as a peer's handshake would: certificate chain,
// dates, SPIFFE rules, manifest, deny list, and that the address is its own.
func (p *Proxy) endOf(pod *LocalPod, addr netip.Addr) (*end, *Refusal) {
	cred, why := p.usable(pod)
	if why != nil {
		return nil, why
	}
	id, why := p.provenBy(cred)
	if why != nil {
		return nil, why
	}
	if !id.HasAddr(addr) {
		return nil, refuse(reasonPeerAddress, "address in the pod's certificate", addr.String(), id.addrList())
	}
	return &end{pod, addr, cred, id}, nil
}

// provenBy is the identity that a local pod's certificate proves. The chain is
// verified once for each certificate and set of roots.
func (p *Proxy) provenBy(cred *Credential) (*identity, *Refusal) {
	if id := cred.proven.Load(); id != nil && p.cfg.Mesh.Roots().Equal(id.roots) {
		return id, p.acceptPeer(id)
	}
	chain := make([]*x509.Certificate, len(cred.TLS.Certificate))
	for i, der := range cred.TLS.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, refuseErr(reasonPeerCertificate, err)
		}
		chain[i] = cert
	}
	if !holdsKey(cred.TLS, chain) {
		return nil, refuse(reasonPeerCertificate, "pod certificate", "the key of its certificate", "another")
	}
	id, why := p.identify(chain, answers)
	if id != nil {
		cred.proven.Store(id)
	}
	return id, why
}

// holdsKey is what a handshake proves.
func holdsKey(cert *tls.Certificate, chain []*x509.Certificate) bool {
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok || len(chain) == 0 {
		return false
	}
	public, ok := key.Public().(interface{ Equal(x crypto.PublicKey) bool })
	return ok && public.Equal(chain[0].PublicKey)
}

// still says for Recheck why an end no longer is what it was.
func (p *Proxy) still(e *end, code string) *Refusal {
	pod, ok := p.cfg.Mesh.Pod(e.addr)
	if !ok || pod.UID != e.pod.UID || pod.Workload != e.pod.Workload {
		return refuse(code, "local pods", "the pod "+e.pod.Name, "it is gone")
	}
	if _, why := p.usable(pod); why != nil {
		return why
	}
	return p.gone(e.self, e.id)
}

// neighbours judges a connection from pod to another pod of this node as both
// nodes of a tunnel would, and says in rec who they are.
func (p *Proxy) neighbours(pod *LocalPod, rec *flow.Record, dst netip.AddrPort) (from, to *end, why *Refusal) {
	rec.Path = pathLocal
	if from, why = p.endOf(pod, rec.Src.Addr()); why != nil {
		return nil, nil, why
	}
	rec.SrcID = from.id.id
	peer, ok := p.cfg.Mesh.Pod(dst.Addr())
	if !ok {
		why = refuse(reasonDestNotEnrolled, "local pods", "the address of an enrolled pod of this node", dst.Addr().String())
		return nil, nil, why.aboutPeer()
	}
	if to, why = p.endOf(peer, dst.Addr()); why != nil {
		return nil, nil, why.aboutPeer()
	}
	rec.DstID, rec.DstWorkload, rec.PeerMeasurement = to.id.id, to.id.facts.Workload, to.id.facts.Measurement
	return from, to, p.allowedBetween(from, to, header(rec.Src, dst)).aboutPeer()
}

func header(src, dst netip.AddrPort) tunnel.Header {
	return tunnel.Header{Proto: tunnel.ProtoTCP, Src: src, Dst: dst}
}

// allowedBetween asks what each of the two nodes of a tunnel would.
func (p *Proxy) allowedBetween(from, to *end, h tunnel.Header) *Refusal {
	if why := p.allowed(from.pod.Workload, to.id.facts.Workload, h); why != nil {
		return why
	}
	return p.allowed(from.id.facts.Workload, to.pod.Workload, h)
}

// carryLocal carries a connection to a pod of this node without a tunnel. It
// returns why the connection may not be, or nil when it has been.
func (p *Proxy) carryLocal(ctx context.Context, app *net.TCPConn, pod *LocalPod, dst netip.AddrPort, rec *flow.Record) *Refusal {
	from, to, why := p.neighbours(pod, rec, dst)
	if why != nil {
		return why
	}
	far := p.farRecord(rec, dst, from, to)
	made, why := p.dialLocal(ctx, &p.in, rec.Src, dst, to.pod)
	if why != nil {
		p.refused(far, why)
		return why
	}
	defer p.in.give(to.pod.UID)
	d := &direct{
		judge:    func() *Refusal { return p.judgeLocal(from, to, header(rec.Src, dst)) },
		notAfter: earlier(from.self.NotAfter, to.self.NotAfter),
	}
	return p.join(pod.UID, app, made, d, func(at time.Time) {
		p.allow(rec, at)
		p.allow(&far, at)
	}, func(res tunnel.Result, began time.Time) {
		p.ended(*rec, res, began, res.Sent, res.Received)
		p.ended(far, res, began, res.Sent, res.Received)
		p.localBytes.Add(res.Sent + res.Received)
	})
}

// judgeLocal says why a connection within the node may no longer be.
func (p *Proxy) judgeLocal(from, to *end, h tunnel.Header) *Refusal {
	if why := p.localAllowed(); why != nil {
		return why
	}
	if why := p.still(from, reasonUnknownSource); why != nil {
		return why
	}
	if why := p.still(to, reasonDestNotEnrolled); why != nil {
		return why
	}
	return p.allowedBetween(from, to, h)
}

// farRecord is the record that the other pod's node would make.
func (p *Proxy) farRecord(rec *flow.Record, dst netip.AddrPort, from, to *end) flow.Record {
	return flow.Record{
		Direction: flow.Ingress, Path: pathLocal, Src: rec.Src, Dst: dst, Node: p.cfg.NodeName, Pod: to.pod.Name,
		SrcID: from.id.id, DstID: to.id.id, SrcWorkload: from.id.facts.Workload, DstWorkload: to.pod.Workload,
	}
}

// dialLocal connects to a local pod within its limit, which the caller gives
// back. The pod sees src.
func (p *Proxy) dialLocal(ctx context.Context, l *limiter, src, dst netip.AddrPort, pod *LocalPod) (*net.TCPConn, *Refusal) {
	if !l.take(pod.UID) {
		return nil, refuse(reasonTooMany, "connection limit", "fewer connections", "the limit of the pod or the node is reached")
	}
	made, err := DialPod(ctx, src, dst, p.cfg.Marks, p.cfg.Limits.DialTimeout)
	if err != nil {
		l.give(pod.UID)
		return nil, refuseErr(dialReason(err).String(), err)
	}
	return made, nil
}
