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

// Word is what the operators and the CDS say at the moment. Its methods are
// called for every connection, by many goroutines: they must not block.
type Word interface {
	Manifest() *policy.Signed
	DenyList() *policy.DenyList // nil denies nobody
	Roots() *x509.CertPool
}

// verifier judges the two ends of connections by the word of the moment. It is
// the same for who carries pods' connections and for who makes its own.
type verifier struct {
	word    Word
	issuers *ratls.Issuers // of peers
	now     func() time.Time
}

func newVerifier(word Word, now func() time.Time) verifier {
	return verifier{word: word, issuers: ratls.NewIssuers(), now: now}
}

// place is where somebody stands who shows a certificate.
type place uint8

const (
	answers place = iota // as the pod that is meant, or as one of this node
	opens                // as who opens a tunnel
)

// takes reports whether somebody of the role may stand there.
func (p place) takes(role policy.Role) bool {
	return role == policy.RoleWorkload || p == opens && role == policy.RoleIngress
}

func (p place) roles() string {
	if p == opens {
		return fmt.Sprintf("%s or %s", policy.RoleWorkload, policy.RoleIngress)
	}
	return string(policy.RoleWorkload)
}

// identity is one end of a tunnel, as its certificate proved it.
type identity struct {
	*ratls.Peer
	id     string
	place  place
	facts  policy.Peer
	holder policy.Holder
	chain  []*x509.Certificate
	roots  *x509.CertPool // that chain was verified under
}

// identify verifies a chain under the roots and the manifest of this moment.
func (v *verifier) identify(chain []*x509.Certificate, at place) (*identity, *Refusal) {
	manifest, why := v.manifest()
	if why != nil {
		return nil, why
	}
	roots := v.word.Roots()
	peer, err := v.issuers.VerifyPeer(chain, roots, manifest.TrustDomain, v.now())
	if err != nil {
		code := string(ratls.CodeOf(err))
		if code == "" {
			code = reasonPeerCertificate
		}
		return nil, refuseErr(code, err)
	}
	id := &identity{Peer: peer, id: peer.ID.String(), place: at, facts: peer.Facts(), holder: peer.Holder(), chain: chain, roots: roots}
	return id, v.acceptPeer(id)
}

func (v *verifier) manifest() (*policy.Manifest, *Refusal) {
	signed := v.word.Manifest()
	if signed == nil || signed.Manifest == nil {
		return nil, refuse(reasonNoManifest, "manifest", "a signed manifest", "none")
	}
	return signed.Manifest, nil
}

// acceptPeer judges a verified peer by the manifest and the deny list of this
// moment.
func (v *verifier) acceptPeer(peer *identity) *Refusal {
	now := v.now()
	manifest, why := v.manifest()
	switch {
	case why != nil:
		return why
	case !peer.place.takes(peer.facts.Role):
		return refuse(reasonPeerRole, "role", peer.place.roles(), string(peer.facts.Role))
	case !now.Before(peer.NotAfter):
		return refuse(reasonExpired, "peer certificate", "not after now", peer.NotAfter.UTC().Format(time.RFC3339))
	}
	if why := decided(manifest.AcceptPeer(peer.facts, now)); why != nil {
		return why
	}
	return v.denied(&peer.holder)
}

// acceptPair judges both ends of a tunnel again. It costs no cryptography and
// is done for every connection: the tunnel may have been made with an earlier
// certificate of this side than the one in use.
func (v *verifier) acceptPair(self *Credential, peer *identity) *Refusal {
	if why := v.denied(&self.Holder); why != nil {
		return why
	}
	return v.acceptPeer(peer)
}

// gone is acceptPair for Recheck, which also sees the roots change. Chains are
// verified again only then: a change of the deny list must reach tens of
// thousands of tunnels at once.
func (v *verifier) gone(self *Credential, peer *identity) *Refusal {
	if roots := v.word.Roots(); !roots.Equal(peer.roots) {
		if _, why := v.identify(peer.chain, peer.place); why != nil {
			return why
		}
	}
	return v.acceptPair(self, peer)
}

// denied asks the deny list of this moment about one end of a connection.
func (v *verifier) denied(h *policy.Holder) *Refusal {
	why := decided(v.word.DenyList().Denies(*h))
	if why != nil {
		why.denied = true
	}
	return why
}

// inForce refuses a certificate of this side that is over or denied.
func (v *verifier) inForce(cred *Credential, rule string) *Refusal {
	if !v.now().Before(cred.NotAfter) {
		return refuse(reasonExpired, rule, "not after now", cred.NotAfter.UTC().Format(time.RFC3339))
	}
	return v.denied(&cred.Holder)
}

// clientTLS shows cert and wants that of the pod at dst. The name check of
// crypto/tls is replaced by ours: identities are SPIFFE URIs and pod addresses,
// not host names.
func (v *verifier) clientTLS(cert *tls.Certificate, dst netip.Addr, peer **identity) *tls.Config {
	own := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	cfg := ratls.ClientConfig(own, func(cs tls.ConnectionState) error {
		if why := checkProtocol(&cs); why != nil {
			return why
		}
		id, why := v.identify(cs.PeerCertificates, answers)
		if why != nil {
			return why
		}
		if !id.HasAddr(dst) {
			return refuse(reasonPeerAddress, "address in the peer's certificate", dst.String(), id.addrList())
		}
		*peer = id
		return nil
	})
	cfg.NextProtos, cfg.ServerName = []string{alpn}, serverName(dst)
	return cfg
}

// allowed asks the manifest whether from may connect to to as h does.
func (v *verifier) allowed(from, to string, h tunnel.Header) *Refusal {
	manifest, why := v.manifest()
	if why != nil {
		return why
	}
	return decided(manifest.PeerAllowed(from, to, resolve.Protocol(h.Proto).String(), h.Dst.Port()))
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
