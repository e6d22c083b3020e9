// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

func TestOnlyP256KeysAreCertified(t *testing.T) {
	w := newWorld(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	larger, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": weak, "Ed25519": edwards, "P-384": larger} {
		t.Run(name, func(t *testing.T) {
			c := w.call(nil)
			if c.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
				t.Fatal(err)
			}
			if c.spki, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
				t.Fatal(err)
			}
			n := c.nonce()
			_, err := c.api.Enrol(t.Context(), c.evidence(w.node(), n, c.exporter(n), c.spki))
			wantCode(t, err, "key-unsupported")
		})
	}
}

func TestMachineOfAnotherRoleIsNoNode(t *testing.T) {
	w := newWorld(t)
	next := w.f.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Roles = []policy.Role{policy.RoleCDS}
		}
	})
	if _, err := w.client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	c := w.call(nil)
	n := c.nonce()
	_, err := c.api.Enrol(t.Context(), c.evidence(w.node(), n, c.exporter(n), c.spki))
	wantCode(t, err, "role")
}

func TestStatementForAnotherNonceIsRefused(t *testing.T) {
	w := newWorld(t)
	node, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	c := w.call(&node.TLS)
	req := c.signed(c.statement(node, c.nonce()), node.TLS.PrivateKey.(*ecdsa.PrivateKey))
	req.Nonce = c.nonce()
	_, err = c.api.Enrol(t.Context(), req)
	wantCode(t, err, "statement-mismatch")
}

// The handshake judged the node's certificate long ago; its dates count on
// every call.
func TestExpiredNodeEnrolsNoPodOnAKeptConnection(t *testing.T) {
	w := newWorld(t)
	node, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	c := w.call(&node.TLS)
	c.nonce() // an answer means that the CDS has judged the certificate
	w.clock.advance(node.TLS.Leaf.NotAfter.Add(time.Second).Sub(w.clock.now()))
	_, err = c.api.Enrol(t.Context(), c.signed(c.statement(node, c.nonce()), node.TLS.PrivateKey.(*ecdsa.PrivateKey)))
	wantCode(t, err, "node-certificate-required")
}

func TestCertificateOfAnotherMeshIsRefusedAndRecorded(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	node, err := other.client().EnrolNode(t.Context(), other.node())
	if err != nil {
		t.Fatal(err)
	}
	c := w.call(&node.TLS)
	if _, err := c.api.Challenge(t.Context(), &api.ChallengeRequest{}); err == nil {
		t.Error("a certificate of another mesh CA is accepted")
	}
	if !strings.Contains(w.log.String(), `"code":"peer-chain"`) {
		t.Error("the log does not say so")
	}
}

// dialled keeps the connections a client opened.
type dialled struct {
	mu    sync.Mutex
	conns []*net.TCPConn
}

func (d *dialled) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conn.(*net.TCPConn))
	return conn, nil
}

func (d *dialled) last() (*net.TCPConn, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[len(d.conns)-1], len(d.conns)
}

// The CDS closes connections nobody used for a while. The next pod must not
// fail for it, least of all make its node enrol again.
func TestPodIsEnrolledAfterTheKeptConnectionWasClosed(t *testing.T) {
	w := newWorld(t)
	var d dialled
	c, err := client.New(client.Config{
		Addrs: []string{w.addr}, Operators: w.f.Operators, Manifest: w.f.Signed, Dial: d.dial, Now: w.clock.now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
			t.Fatal(err)
		}
	}
	conn, before := d.last()
	if before != 2 {
		t.Errorf("%d connections for a node and two pods, want one each", before)
	}
	if err := conn.CloseRead(); err != nil { // as if the other end had closed
		t.Fatal(err)
	}
	if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
		t.Errorf("after the connection was closed: %v", err)
	}
	if _, after := d.last(); after != before+1 {
		t.Errorf("%d connections, want one more than %d", after, before)
	}
}

// watching follows the CDS and hands on what was accepted.
func watching(t *testing.T, c *client.Client) <-chan *policy.Signed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan *policy.Signed, 4), make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Watch(ctx, func(n client.News) {
			if n.Manifest != nil {
				got <- n.Manifest
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return got
}

func arrives(t *testing.T, got <-chan *policy.Signed, want policy.Digest, within time.Duration) {
	t.Helper()
	select {
	case s := <-got:
		if s.Digest != want {
			t.Errorf("version %d arrived, want another", s.Manifest.Version)
		}
	case <-time.After(within):
		t.Fatalf("nothing arrived within %s", within)
	}
}

func TestPublicationReachesWatchersWithinASecondAndAgainAfterARestart(t *testing.T) {
	w := newWorld(t)
	got := watching(t, w.client())
	second := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = !m.Workloads[0].HostAccess })
	third := second.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	fourth := third.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = false })
	if _, err := w.client().PublishManifest(t.Context(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	arrives(t, got, second.Digest, 20*time.Second) // the watcher may still be connecting
	if _, err := w.client().PublishManifest(t.Context(), third.Envelope); err != nil {
		t.Fatal(err)
	}
	arrives(t, got, third.Digest, time.Second)
	w.stop()
	w.startAt(w.addr, simtest.Attester(t, "cds", measuredFor(w.f.Operators)))
	if _, err := w.client().PublishManifest(t.Context(), fourth.Envelope); err != nil {
		t.Fatal(err)
	}
	arrives(t, got, fourth.Digest, 20*time.Second)
}

// The client that keeps a connection must not go on using a CDS that the
// operators have withdrawn since it was verified.
func TestPodIsNotEnrolledWithACDSWithdrawnSinceItWasVerified(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
		t.Fatal(err)
	}
	second := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	withdrawn := second.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Roles = []policy.Role{policy.RoleNode}
		}
	})
	got := watching(t, c)
	if _, err := w.client().PublishManifest(t.Context(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	arrives(t, got, second.Digest, 20*time.Second)
	if _, err := c.EnrolPod(t.Context(), node, webPod()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client().PublishManifest(t.Context(), withdrawn.Envelope); err != nil {
		t.Fatal(err)
	}
	arrives(t, got, withdrawn.Digest, 20*time.Second)
	if _, err := c.EnrolPod(t.Context(), node, webPod()); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("got %v, want a refusal that names the role", err)
	}
}
