// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"

	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// An ingress is a machine and no pod: its certificate holds no address, and the
// manifest's ingress rules stand in the place of peer rules.

func (s *inboundSession) fromIngress() bool { return s.peer.facts.Role == policy.RoleIngress }

// openedFrom refuses a source that is not its opener's: a pod's is in its
// certificate, an ingress has the address of its host.
func (p *Proxy) openedFrom(s *inboundSession, src netip.Addr) *Refusal {
	if !s.fromIngress() {
		if !s.peer.HasAddr(src) {
			return refuse(reasonSourceMismatch, "address in the peer's certificate", s.peer.addrList(), src.String())
		}
		return nil
	}
	if want := hostSource(s.from, src); src != want {
		return refuse(reasonSourceMismatch, "address that the tunnel comes from", want.String(), src.String())
	}
	for _, addr := range [...]netip.Addr{s.from, src} {
		if whose := p.taken(addr); whose != "" {
			return refuse(reasonSourceMismatch, "address of an ingress", "that of a host, on its network", addr.String()+whose)
		}
	}
	return nil
}

// mayOpen asks the manifest whether a tunnel's opener may connect as h does.
func (p *Proxy) mayOpen(s *inboundSession, h tunnel.Header) *Refusal {
	if !s.fromIngress() {
		return p.allowed(s.peer.facts.Workload, s.pod.Workload, h)
	}
	if h.Proto != tunnel.ProtoTCP {
		return refuse(reasonIngressProtocol, "ingress", "tcp", "udp")
	}
	return p.ingressReaches(s.pod.Workload, h.Dst.Port())
}

// ingressRule is what allows a connection of an ingress, for its record.
func (p *Proxy) ingressRule(s *inboundSession, h tunnel.Header) string {
	if manifest, why := p.manifest(); why == nil && s.fromIngress() {
		return manifest.IngressReaches(s.pod.Workload, h.Dst.Port()).Rule
	}
	return ""
}

func (v *verifier) ingressReaches(workload string, port uint16) *Refusal {
	manifest, why := v.manifest()
	if why != nil {
		return why
	}
	return decided(manifest.IngressReaches(workload, port))
}

// hostSource is the source of connections to dst, or to others of its family,
// that an ingress on host makes. An IPv6 pod sees an IPv4 host by its address
// in the well-known prefix of RFC 6052, section 2.1. The other way round there
// is none.
func hostSource(host, dst netip.Addr) netip.Addr {
	switch {
	case host.Is4() == dst.Is4():
		return host
	case host.Is4():
		raw := [16]byte{0x00, 0x64, 0xff, 0x9b}
		four := host.As4()
		copy(raw[12:], four[:])
		return netip.AddrFrom16(raw)
	}
	return netip.Addr{}
}
