// SPDX-License-Identifier: Apache-2.0

package ratls

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Verify decides about the other end once the handshake is complete. It runs
// on every connection (tls.Config.VerifyConnection), also on resumed ones.
type Verify func(tls.ConnectionState) error

// ServerConfig returns the one way servers speak TLS here: version 1.3, both
// ends prove themselves, hybrid post-quantum key exchange, no resumption and no
// early data. A nil verify refuses everybody.
func ServerConfig(cert func(*tls.ClientHelloInfo) (*tls.Certificate, error), verify Verify) *tls.Config {
	c := base(verify)
	c.GetCertificate = cert
	c.ClientAuth = tls.RequireAnyClientCert // judged by verify
	return c
}

// ClientConfig is the same for clients. The name of the server is verify's
// question: it knows the peer's SPIFFE ID.
func ClientConfig(cert func(*tls.CertificateRequestInfo) (*tls.Certificate, error), verify Verify) *tls.Config {
	c := base(verify)
	c.GetClientCertificate = cert
	c.InsecureSkipVerify = true // the chain and the name are judged by verify, not by DNS names
	return c
}

func base(verify Verify) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		MaxVersion:                  tls.VersionTLS13,
		CurvePreferences:            []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		SessionTicketsDisabled:      true, // a resumed session would skip attestation
		ClientSessionCache:          nil,
		DynamicRecordSizingDisabled: true, // bulk data goes in full records from the start
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.DidResume {
				return refuse(CodeResumed, "verifying the peer: the session was resumed")
			}
			if verify == nil {
				return refuse(CodeNoVerifier, "verifying the peer: nothing to verify it with")
			}
			return verify(state)
		},
	}
}

// PeerVerify verifies issued certificates and hands the peer to accept, which
// asks the manifest. roots and now are asked on every connection; a nil accept
// refuses everybody.
func PeerVerify(roots func() *x509.CertPool, trustDomain string, now func() time.Time, accept func(*Peer) error) Verify {
	return func(state tls.ConnectionState) error {
		peer, err := VerifyPeer(state.PeerCertificates, roots(), trustDomain, now())
		if err != nil {
			return err
		}
		if accept == nil {
			return refuse(CodeNoVerifier, "verifying the peer: nobody to accept it")
		}
		return accept(peer)
	}
}
