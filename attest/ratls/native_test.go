// SPDX-License-Identifier: Apache-2.0

package ratls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/ratls/ratlstest"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type nativeSetup struct {
	cert     tls.Certificate
	key      *ecdsa.PrivateKey
	manifest *policy.Manifest
	now      time.Time
}

func native(t testing.TB) nativeSetup {
	t.Helper()
	tee := simtest.New(t, "cds")
	n := nativeSetup{key: newKey(t), now: time.Now()}
	n.manifest = policytest.New(t, policytest.With(simtest.Accept(tee))).Manifest
	var err error
	if n.cert, err = ratls.NativeCertificate(context.Background(), n.key, tsm.New(tee), "cds", n.now); err != nil {
		t.Fatal(err)
	}
	return n
}

func refusalCode(err error) string {
	if code := ratls.CodeOf(err); code != "" {
		return string(code)
	}
	var refused *attest.RefusedError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

func TestNativeCertificateIsAccepted(t *testing.T) {
	n := native(t)
	v, err := ratls.VerifyNative(n.cert.Leaf, "cds", n.manifest, policy.RoleCDS, n.now)
	if err != nil || !v.OK || !v.Simulated {
		t.Fatalf("%v\n%s", err, v)
	}
}

// reissue signs the leaf's contents again with key after an edit.
func (n nativeSetup) reissue(t *testing.T, key *ecdsa.PrivateKey, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	old := n.cert.Leaf
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: old.Subject, NotBefore: old.NotBefore, NotAfter: old.NotAfter, BasicConstraintsValid: true,
		KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage,
	}
	for _, e := range old.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 35}) {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestBadNativeCertificatesAreRefusedEachByItsCode(t *testing.T) {
	n := native(t)
	same := func(*x509.Certificate) {}
	cmw := func(value []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions[0].Value = value }
	}
	for name, c := range map[string]struct {
		leaf    *x509.Certificate
		purpose string
		role    policy.Role
		later   time.Duration
		code    string
	}{
		"no certificate":    {leaf: nil, code: "peer-no-certificate"},
		"another purpose":   {leaf: n.cert.Leaf, purpose: "ingress", code: "report-data"},
		"another role":      {leaf: n.cert.Leaf, role: policy.RoleIngress, code: "role"},
		"expired":           {leaf: n.cert.Leaf, later: ratls.NativeLifetime + time.Minute, code: "native-expired"},
		"not yet valid":     {leaf: n.cert.Leaf, later: -time.Hour, code: "native-expired"},
		"another key":       {leaf: n.reissue(t, newKey(t), same), code: "report-data"},
		"dates moved":       {leaf: n.reissue(t, n.key, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(-time.Hour) }), code: "report-data"},
		"life of a year":    {leaf: n.reissue(t, n.key, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(1, 0, 0) }), code: "native-expired"},
		"CA":                {leaf: n.reissue(t, n.key, func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), code: "native-certificate"},
		"signed by another": {leaf: signedByAnother(t, n), code: "native-certificate"},
		"no evidence":       {leaf: n.reissue(t, n.key, func(c *x509.Certificate) { c.ExtraExtensions = nil }), code: "native-evidence"},
		"evidence twice": {leaf: n.reissue(t, n.key, func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9}, Value: c.ExtraExtensions[0].Value})
		}), code: "native-evidence"},
		"evidence as JSON":    {leaf: n.reissue(t, n.key, cmw([]byte{asn1.TagUTF8String, 2, '{', '}'})), code: "native-evidence"},
		"evidence of nothing": {leaf: n.reissue(t, n.key, cmw([]byte{asn1.TagOctetString, 0})), code: "native-evidence"},
		"evidence, then more": {leaf: n.reissue(t, n.key, func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value = append(c.ExtraExtensions[0].Value, 5, 0)
		}), code: "native-evidence"},
	} {
		t.Run(name, func(t *testing.T) {
			purpose, role := "cds", policy.RoleCDS
			if c.purpose != "" {
				purpose = c.purpose
			}
			if c.role != "" {
				role = c.role
			}
			if _, err := ratls.VerifyNative(c.leaf, purpose, n.manifest, role, n.now.Add(c.later)); refusalCode(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

func signedByAnother(t *testing.T, n nativeSetup) *x509.Certificate {
	t.Helper()
	leaf := *n.cert.Leaf
	leaf.Signature = append([]byte(nil), leaf.Signature...)
	leaf.Signature[len(leaf.Signature)-1] ^= 1
	return &leaf
}

func TestEvidenceUnderTCGsNumberIsReadToo(t *testing.T) {
	n := native(t)
	leaf := n.reissue(t, n.key, func(c *x509.Certificate) { c.ExtraExtensions[0].Id = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9} })
	if _, err := ratls.VerifyNative(leaf, "cds", n.manifest, policy.RoleCDS, n.now); err != nil {
		t.Error(err)
	}
}

// handshake connects a client and a server and returns both errors.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, c, s error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(b, server)
		err := conn.Handshake()
		if err != nil {
			_ = b.Close()
		} else {
			_, err = conn.Write([]byte("x"))
		}
		done <- err
	}()
	conn := tls.Client(a, client)
	if c = conn.Handshake(); c == nil {
		state = conn.ConnectionState()
		_, c = conn.Read(make([]byte, 1))
	}
	_ = a.Close()
	return state, c, <-done
}

func TestTwoPeersTalkPostQuantumTLS13AndNothingElse(t *testing.T) {
	now := time.Now()
	f := policytest.New(t)
	ca := ratlstest.New(t, policytest.TrustDomain, now)
	leaf := ca.Issue(t, claims(t, f), addrs())
	serverCert := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &leaf, nil }
	clientCert := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf, nil }
	verify := ratls.PeerVerify(ca.Pool, policytest.TrustDomain, func() time.Time { return now }, func(p *ratls.Peer) error {
		return f.Manifest.AcceptPeer(p.Facts(), now).Err()
	})
	server, client := ratls.ServerConfig(serverCert, verify), ratls.ClientConfig(clientCert, verify)
	state, c, s := handshake(t, client, server)
	if c != nil || s != nil {
		t.Fatal(c, s)
	}
	if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, group %v", state.Version, state.CurveID)
	}
	old := client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	anonymous := client.Clone()
	anonymous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	for name, pair := range map[string][2]*tls.Config{
		"TLS 1.2":                  {old, server},
		"no client certificate":    {anonymous, server},
		"server verifies nothing":  {client, ratls.ServerConfig(serverCert, nil)},
		"client verifies nothing":  {ratls.ClientConfig(clientCert, nil), server},
		"nobody accepts the peer":  {client, ratls.ServerConfig(serverCert, ratls.PeerVerify(ca.Pool, policytest.TrustDomain, time.Now, nil))},
		"client of another domain": {ratls.ClientConfig(clientCert, ratls.PeerVerify(ca.Pool, "other.test", time.Now, func(*ratls.Peer) error { return nil })), server},
		"classical curves only":    {curves(client, tls.CurveP256), server},
	} {
		if _, c, s := handshake(t, pair[0], pair[1]); c == nil && s == nil {
			t.Errorf("%s: connected", name)
		}
	}
}

func curves(c *tls.Config, ids ...tls.CurveID) *tls.Config {
	c = c.Clone()
	c.CurvePreferences = ids
	return c
}

func TestResumedSessionsAreRefused(t *testing.T) {
	c := ratls.ServerConfig(nil, func(tls.ConnectionState) error { return nil })
	if err := c.VerifyConnection(tls.ConnectionState{DidResume: true}); ratls.CodeOf(err) != ratls.CodeResumed {
		t.Errorf("got %v", err)
	}
	if !c.SessionTicketsDisabled || c.ClientSessionCache != nil || !c.DynamicRecordSizingDisabled {
		t.Error("tickets, a session cache or small records are on")
	}
}

func FuzzVerifyNative(f *testing.F) {
	n := native(f)
	f.Add(n.cert.Certificate[0])
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		// Fuzzing runs in several processes with a key each: a machine is all
		// they have in common.
		v, err := ratls.VerifyNative(leaf, "cds", n.manifest, policy.RoleCDS, n.now)
		if want := simtest.Options("cds").ChipID; err == nil && v.Machine != hex.EncodeToString(want[:]) {
			t.Errorf("accepted another machine: %s", v)
		}
	})
}

func BenchmarkVerifyNative(b *testing.B) {
	n := native(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ratls.VerifyNative(n.cert.Leaf, "cds", n.manifest, policy.RoleCDS, n.now); err != nil {
			b.Fatal(err)
		}
	}
}
