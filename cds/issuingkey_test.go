// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// issuerOf is the digest of the key that signed a credential's certificate.
func issuerOf(t *testing.T, chain [][]byte) policy.Digest {
	t.Helper()
	cert, err := x509.ParseCertificate(chain[1])
	if err != nil {
		t.Fatal(err)
	}
	return policy.DigestOf(cert.RawSubjectPublicKeyInfo)
}

// A stolen issuing key is made worthless by denying it: what it signed counts
// nowhere, and the replica makes another.
func TestDeniedIssuingKeyIsReplacedAndItsCertificatesAreRefused(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	stolen := issuerOf(t, node.TLS.Certificate)
	if node.Peer.IssuerKey != stolen {
		t.Fatalf("the verified peer's issuer is %s, want %s", node.Peer.IssuerKey, stolen)
	}
	caller := w.call(&node.TLS)
	caller.nonce()
	list := w.f.DenyList(t, nil, policytest.Deny(policy.DenyKey, string(stolen)))
	if _, err := c.PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	if d := list.List.Denies(node.Peer.Holder()); d.Code != policy.CodeDeniedKey {
		t.Errorf("a certificate of the denied key: %v", d)
	}
	w.waitReady()
	_, err = caller.api.Enrol(t.Context(), caller.signed(caller.statement(node, caller.nonce()), node.TLS.PrivateKey.(*ecdsa.PrivateKey)))
	wantCode(t, err, "denied-key")
	next, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	if d := list.List.Denies(next.Peer.Holder()); !d.Allowed {
		t.Errorf("the next certificate is denied, too: %v", d)
	}
}
