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
	"github.com/c8s-dev/c8s/policy"
)

const (
	alpn      = "c8s/1"
	sniSuffix = ".pod.c8s"
)

// identity is the other end of a tunnel, as its certificate proved it.
type identity struct {
	*ratls.Peer
	id    string
	facts policy.Peer
	chain []*x509.Certificate // to verify again when the roots change
}

// identify verifies a chain under the roots and the manifest of this moment.
func (p *Proxy) identify(chain []*x509.Certificate) (*identity, *refusal) {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return nil, refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	peer, err := p.issuers.VerifyPeer(chain, p.cfg.Mesh.Roots(), signed.Manifest.TrustDomain, p.cfg.Now())
	if err != nil {
		code := string(ratls.CodeOf(err))
		if code == "" {
			code = reasonPeerCertificate
		}
		return nil, refuseErr(code, err)
	}
	id := &identity{Peer: peer, id: peer.ID.String(), facts: peer.Facts(), chain: chain}
	return id, p.acceptNow(id)
}

// acceptNow judges a verified peer again: it costs no cryptography and is
// done for every connection.
func (p *Proxy) acceptNow(peer *identity) *refusal {
	signed := p.cfg.Mesh.Manifest()
	switch {
	case signed == nil || signed.Manifest == nil:
		return refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	case peer.facts.Role != policy.RoleWorkload:
		return refuse(reasonPeerRole, "role", string(policy.RoleWorkload), string(peer.facts.Role))
	case !p.cfg.Now().Before(peer.NotAfter):
		return refuse(reasonExpired, "peer certificate", "not after now", peer.NotAfter.UTC().Format(time.RFC3339))
	}
	return decided(signed.Manifest.AcceptPeer(peer.facts, p.cfg.Now()))
}

// allowed asks the manifest whether from may connect to to on port.
func (p *Proxy) allowed(from, to string, port uint16) *refusal {
	signed := p.cfg.Mesh.Manifest()
	if signed == nil || signed.Manifest == nil {
		return refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	return decided(signed.Manifest.PeerAllowed(from, to, port))
}

func (i *identity) addrList() string {
	return strings.Trim(fmt.Sprint(i.Addrs), "[]")
}

// usable returns the pod's certificate while it has a valid one.
func (p *Proxy) usable(pod *LocalPod) (*tls.Certificate, time.Time, *refusal) {
	cert := pod.Cert()
	if cert == nil || len(cert.Certificate) == 0 {
		return nil, time.Time{}, refuse(reasonNotEnrolled, "pod certificate", "a certificate for "+pod.Name, "none yet")
	}
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, time.Time{}, refuseErr(reasonNotEnrolled, err)
		}
	}
	if !p.cfg.Now().Before(leaf.NotAfter) {
		return nil, time.Time{}, refuse(reasonExpired, "pod certificate", "not after now", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return cert, leaf.NotAfter, nil
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
func checkProtocol(cs *tls.ConnectionState) *refusal {
	if cs.NegotiatedProtocol != alpn {
		return refuse(reasonProtocol, "handshake", "protocol "+alpn, fmt.Sprintf("%q", cs.NegotiatedProtocol))
	}
	return nil
}
