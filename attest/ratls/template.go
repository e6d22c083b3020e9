// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
)

// Template returns the leaf that ParsePeer accepts for the holder; the issuer
// adds serial number, key and signature. It lives beside ParsePeer so that what
// is issued and what is accepted cannot drift apart.
func Template(role policy.Role, id spiffeid.ID, claims Claims, addrs []netip.Addr, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	if claims.Role != role {
		return nil, fmt.Errorf("making a certificate: role %q, but the claims say %q", role, claims.Role)
	}
	want, err := NewID(id.TrustDomain().Name(), &claims)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	if want != id {
		return nil, fmt.Errorf("making a certificate: name %q, but the claims belong to %q", id, want)
	}
	if len(addrs) > maxAddrs {
		return nil, fmt.Errorf("making a certificate: %d addresses, at most %d allowed", len(addrs), maxAddrs)
	}
	if !notBefore.Before(notAfter) {
		return nil, fmt.Errorf("making a certificate: it would end (%s) before it begins (%s)", notAfter, notBefore)
	}
	extension, err := claims.Marshal()
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	subject := pkix.Name{CommonName: string(role)}
	if claims.Simulated {
		subject.Organization = []string{SimulatedMark}
	}
	t := &x509.Certificate{
		Subject: subject, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{id.URL()},
		ExtraExtensions:       []pkix.Extension{{Id: claimsOID(), Value: extension}},
	}
	for _, addr := range addrs {
		if !addr.IsValid() {
			return nil, fmt.Errorf("making a certificate: an address is not valid")
		}
		t.IPAddresses = append(t.IPAddresses, net.IP(addr.Unmap().AsSlice()))
	}
	return t, nil
}

// SimulatedMark is in the subject of every certificate that rests on a
// simulated TEE.
const SimulatedMark = snp.SimulatedMark
