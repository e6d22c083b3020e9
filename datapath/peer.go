// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

const (
	alpn      = "c8s/1"
	sniSuffix = ".pod.c8s"
)

// identity is the other end of a tunnel, as its certificate proved it.
type identity struct {
	*ratls.Peer
	id     string
	facts  policy.Peer
	holder policy.Holder
	chain  []*x509.Certificate
	roots  *x509.CertPool // that chain was verified under
}

// identify verifies a chain under the roots and the manifest of this moment.
func (p *Proxy) identify(chain []*x509.Certificate) (*identity, *Refusal) {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return nil, refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	roots := p.cfg.Mesh.Roots()
	peer, err := p.issuers.VerifyPeer(chain, roots, signed.Manifest.TrustDomain, p.cfg.Now())
	if err != nil {
		code := string(ratls.CodeOf(err))
		if code == "" {
			code = reasonPeerCertificate
		}
		return nil, refuseErr(code, err)
	}
	id := &identity{Peer: peer, id: peer.ID.String(), facts: peer.Facts(), holder: peer.Holder(), chain: chain, roots: roots}
	return id, p.acceptPeer(id)
}

// acceptPeer judges a verified peer by the manifest and the deny list of this
// moment.
func (p *Proxy) acceptPeer(peer *identity) *Refusal {
	now, signed := p.cfg.Now(), p.cfg.Mesh.Manifest()
	switch {
	case signed == nil || signed.Manifest == nil:
		return refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	case peer.facts.Role != policy.RoleWorkload:
		return refuse(reasonPeerRole, "role", string(policy.RoleWorkload), string(peer.facts.Role))
	case !now.Before(peer.NotAfter):
		return refuse(reasonExpired, "peer certificate", "not after now", peer.NotAfter.UTC().Format(time.RFC3339))
	}
	if why := decided(signed.Manifest.AcceptPeer(peer.facts, now)); why != nil {
		return why
	}
	return p.denied(&peer.holder)
}

// acceptPair judges both ends of a tunnel again. It costs no cryptography and
// is done for every connection: the tunnel may have been made with an earlier
// certificate of the local pod than the one in use.
func (p *Proxy) acceptPair(self *Credential, peer *identity) *Refusal {
	if why := p.denied(&self.Holder); why != nil {
		return why
	}
	return p.acceptPeer(peer)
}

// gone is acceptPair for Recheck, which also sees the roots change. Chains are
// verified again only then: a change of the deny list must reach tens of
// thousands of tunnels at once.
func (p *Proxy) gone(self *Credential, peer *identity) *Refusal {
	if roots := p.cfg.Mesh.Roots(); !roots.Equal(peer.roots) {
		if _, why := p.identify(peer.chain); why != nil {
			return why
		}
	}
	return p.acceptPair(self, peer)
}

// allowed asks the manifest whether from may connect to to as h does.
func (p *Proxy) allowed(from, to string, h tunnel.Header) *Refusal {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	return decided(signed.Manifest.PeerAllowed(from, to, resolve.Protocol(h.Proto).String(), h.Dst.Port()))
}

func (i *identity) addrList() string {
	return strings.Trim(fmt.Sprint(i.Addrs), "[]")
}

// serverName is the name under which a tunnel asks for the pod at addr.
func serverName(addr netip.Addr) string {
	return hex.EncodeToString(addr.AsSlice()) + sniSuffix
}

var errServerName = errors.New("server name is not a pod's")

// parseServerName is the strict inverse of serverName.
func parseServerName(name string) (netip.Addr, error) {
	digits, ok := strings.CutSuffix(name, sniSuffix)
	if !ok {
		return netip.Addr{}, errServerName
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return netip.Addr{}, errServerName
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok || addr.Is4In6() || serverName(addr) != name {
		return netip.Addr{}, errServerName
	}
	return addr, nil
}

// checkProtocol refuses what ratls's configurations leave open: the protocol.
func checkProtocol(cs *tls.ConnectionState) *Refusal {
	if cs.NegotiatedProtocol != alpn {
		return refuse(reasonProtocol, "handshake", "protocol "+alpn, fmt.Sprintf("%q", cs.NegotiatedProtocol))
	}
	return nil
}
