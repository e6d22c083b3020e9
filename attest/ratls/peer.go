// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/policy"
)

const (
	maxChain = 4  // certificates a peer may send
	maxAddrs = 16 // IP SANs
)

// claimsOID marks the claims extension. It is of the documentation arc of RFC
// 5612 until the project has an arc of its own.
func claimsOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 8, 1} }

// Peer is the holder of a certificate issued by the CDS.
type Peer struct {
	ID       spiffeid.ID
	Claims   Claims
	Addrs    []netip.Addr // IP SANs, without IPv4-in-IPv6 forms
	NotAfter time.Time    // of the leaf, or of its issuers if those end earlier
	Serial   string       // hexadecimal
	Leaf     *x509.Certificate
	// IssuerKey is the digest of the issuing CA's SubjectPublicKeyInfo, where the
	// chain was verified and that CA is not the root.
	IssuerKey policy.Digest
}

// Facts returns what the manifest judges on every connection.
func (p *Peer) Facts() policy.Peer {
	c := &p.Claims
	return policy.Peer{
		Role: c.Role, TrustDomain: p.ID.TrustDomain().Name(), Workload: c.Workload, WorkloadDigest: c.WorkloadDigest,
		ManifestVersion: c.ManifestVersion, ManifestDigest: c.ManifestDigest,
		SubstrateFacts: c.SubstrateFacts,
	}
}

// Holder returns what deny lists name the certificate's holder by.
func (p *Peer) Holder() policy.Holder {
	return policy.Holder{
		Serial: p.Serial, Key: policy.DigestOf(p.Leaf.RawSubjectPublicKeyInfo), IssuerKey: p.IssuerKey,
		Machine: p.Claims.Machine, Measurement: p.Claims.Measurement, Workload: p.Claims.Workload,
	}
}

// HasAddr reports whether the certificate names the address.
func (p *Peer) HasAddr(addr netip.Addr) bool {
	return slices.Contains(p.Addrs, addr.Unmap().WithZone(""))
}

// NewID returns the one SPIFFE ID that may carry the claims: /workload/<entry>
// for workloads, and /<role>/<hash of the machine's id>.
func NewID(trustDomain string, c *Claims) (spiffeid.ID, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("naming a certificate's holder: %w", err)
	}
	name := c.Workload
	if c.Role != policy.RoleWorkload {
		name = machineName(c.Machine)
	}
	id, err := spiffeid.FromSegments(td, string(c.Role), name)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("naming a certificate's holder: %w", err)
	}
	return id, nil
}

// machineName shortens a chip id for names. It identifies nothing to the
// policy, which has the whole chip id in the claims.
func machineName(machine string) string {
	sum := sha256.Sum256([]byte("c8s/machine/v1\x00" + machine))
	return hex.EncodeToString(sum[:8])
}

// VerifyPeer checks a peer's chain, leaf first, against the CDS roots, dates
// and the rules for X.509-SVIDs, and returns what the leaf says. It does not
// ask the manifest: that is Manifest.AcceptPeer on the Peer's Facts.
func VerifyPeer(chain []*x509.Certificate, roots *x509.CertPool, trustDomain string, now time.Time) (*Peer, error) {
	return verifyPeer(chain, roots, trustDomain, now, verifyChain)
}

// verifyPeer gets the chain up to a root from verify.
func verifyPeer(chain []*x509.Certificate, roots *x509.CertPool, trustDomain string, now time.Time,
	verify func([]*x509.Certificate, *x509.CertPool, time.Time) ([]*x509.Certificate, error),
) (*Peer, error) {
	if len(chain) == 0 {
		return nil, refuse(CodeNoCertificate, "verifying the peer: it sent no certificate")
	}
	if len(chain) > maxChain {
		return nil, refuse(CodeChain, "verifying the peer: %d certificates, at most %d accepted", len(chain), maxChain)
	}
	if roots == nil { // x509 would fall back to the machine's public roots
		return nil, refuse(CodeChain, "verifying the peer: no CDS roots known yet")
	}
	verified, err := verify(chain, roots, now)
	if err != nil {
		return nil, refuse(chainCode(err), "verifying the peer's chain: %w", err)
	}
	peer, err := ParsePeer(chain[0])
	if err != nil {
		return nil, err
	}
	if name := peer.ID.TrustDomain().Name(); name != trustDomain {
		return nil, refuse(CodeTrustDomain, "verifying the peer: it belongs to trust domain %q, this is %q", name, trustDomain)
	}
	if len(verified) > 2 {
		peer.IssuerKey = policy.DigestOf(verified[1].RawSubjectPublicKeyInfo)
	}
	for _, c := range verified {
		if c.NotAfter.Before(peer.NotAfter) {
			peer.NotAfter = c.NotAfter
		}
	}
	return peer, nil
}

// verifyChain returns a chain from the leaf to a root.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // checkUsage wants more than any one
	})
	if err != nil {
		return nil, err
	}
	return verified[0], nil
}

func chainCode(err error) Code {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return CodeDates
	}
	return CodeChain
}

// ParsePeer reads a leaf and checks it against the rules for X.509-SVIDs and
// ours. It checks neither signatures nor dates.
func ParsePeer(leaf *x509.Certificate) (*Peer, error) {
	if leaf == nil {
		return nil, refuse(CodeNoCertificate, "reading the peer's certificate: there is none")
	}
	if err := checkUsage(leaf); err != nil {
		return nil, err
	}
	id, addrs, err := checkNames(leaf)
	if err != nil {
		return nil, err
	}
	claims, err := claimsOf(leaf)
	if err != nil {
		return nil, err
	}
	want, err := NewID(id.TrustDomain().Name(), claims)
	if err != nil || want != id {
		return nil, refuse(CodeNameClaims, "reading the peer's certificate: it is named %q, but its claims belong to %q", id, want)
	}
	return &Peer{
		ID: id, Claims: *claims, Addrs: addrs, NotAfter: leaf.NotAfter,
		Serial: leaf.SerialNumber.Text(16), Leaf: leaf,
	}, nil
}

// checkUsage keeps issuers and helpers of other protocols out (X.509-SVID
// sections 4.1 to 4.4).
func checkUsage(leaf *x509.Certificate) error {
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return refuse(CodeCA, "reading the peer's certificate: it may sign certificates or revocation lists")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return refuse(CodeUsage, "reading the peer's certificate: it may not make digital signatures")
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !slices.Contains(leaf.ExtKeyUsage, usage) {
			return refuse(CodeUsage, "reading the peer's certificate: it is not for both TLS servers and clients")
		}
	}
	return nil
}

func checkNames(leaf *x509.Certificate) (spiffeid.ID, []netip.Addr, error) {
	if len(leaf.URIs) != 1 || len(leaf.DNSNames) != 0 || len(leaf.EmailAddresses) != 0 {
		return spiffeid.ID{}, nil, refuse(CodeNames, "reading the peer's certificate: %d URI, %d DNS and %d mail names, expected one URI",
			len(leaf.URIs), len(leaf.DNSNames), len(leaf.EmailAddresses))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return spiffeid.ID{}, nil, refuse(CodeNames, "reading the peer's name: %w", err)
	}
	if len(leaf.IPAddresses) > maxAddrs {
		return spiffeid.ID{}, nil, refuse(CodeNames, "reading the peer's certificate: %d addresses, at most %d accepted", len(leaf.IPAddresses), maxAddrs)
	}
	addrs := make([]netip.Addr, 0, len(leaf.IPAddresses))
	for _, ip := range leaf.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return spiffeid.ID{}, nil, refuse(CodeNames, "reading the peer's certificate: an address of %d bytes", len(ip))
		}
		addrs = append(addrs, addr.Unmap())
	}
	return id, addrs, nil
}

func claimsOf(leaf *x509.Certificate) (*Claims, error) {
	var value []byte
	found := 0
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(claimsOID()) {
			value = ext.Value
			found++
		}
	}
	if found != 1 {
		return nil, refuse(CodeClaims, "reading the peer's certificate: %d claims extensions, expected one: it was not issued by a CDS", found)
	}
	return ParseClaims(value)
}
