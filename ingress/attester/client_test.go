// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// listen serves the documents over TLS with the ingress's key.
func (w *world) listen() *httptest.Server {
	w.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{prooftest.Host}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &w.TLSKey.PublicKey, w.TLSKey)
	if err != nil {
		w.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(w.Attester)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: w.TLSKey}}}
	s.StartTLS()
	w.t.Cleanup(s.Close)
	return s
}

// visitor is a client that trusts the operators, and reaches the ingress.
func (w *world) visitor(s *httptest.Server) *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{
		Anchor: client.FromOperators(w.Operators), InsecureSkipWebPKI: true, AllowSimulated: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// The client that knows nothing but the operators proves this ingress by what
// is served here, and goes on to do so when the operators say something new.
func TestClientsProveTheIngressByWhatItServes(t *testing.T) {
	w := newWorld(t)
	w.prove()
	s := w.listen()
	c := w.visitor(s)
	r, err := c.Verify(t.Context(), "https://"+prooftest.Host)
	if err != nil || len(r.Refuted()) > 0 || r.Overall == client.Refuted || r.TLSKey != digestOf(t, w.TLSKey) || r.Manifest.Version != 1 {
		t.Fatalf("%v: %+v", err, r.Refuted())
	}
	if len(w.shown.Load().keys) != 1 || w.tee.asked.Load() != 1 {
		t.Errorf("the TEE was asked %d times", w.tee.asked.Load())
	}

	w.Publish(nil)
	w.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	w.prove()
	if r, err = c.Verify(t.Context(), "https://"+prooftest.Host); err != nil || r.Overall == client.Refuted || r.Manifest.Version != 2 || r.DenyList.Version != 1 {
		t.Fatalf("after the manifest changed: %v: %+v", err, r.Refuted())
	}

	w.Deny(policytest.Deny(policy.DenyMachine, w.Credential.Peer.Claims.Machine))
	w.fails(string(policy.CodeDeniedMachine))
	w.clock.Store(int64(mutableLife))
	r, err = w.visitor(s).Verify(t.Context(), "https://"+prooftest.Host)
	if r == nil || r.Overall != client.Refuted {
		t.Fatalf("a denied machine is proven: %v", err)
	}
	if i := slices.IndexFunc(r.Steps, func(s proof.Step) bool { return s.Name == proof.StepDenied }); i < 0 || r.Steps[i].Code != string(policy.CodeDeniedMachine) {
		t.Errorf("%v: %+v", err, r.Refuted())
	}
}

// Whoever comes for the first time after the CDS is gone can still judge the
// proof, for as long as it is believed.
func TestProofIsJudgedWithoutTheCDS(t *testing.T) {
	w := newWorld(t)
	w.Publish(nil) // the first manifest is where trust begins
	w.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	w.prove()
	s := w.listen()
	w.Stop()
	w.clock.Store(int64(mutableLife))
	if r, err := w.visitor(s).Verify(t.Context(), "https://"+prooftest.Host); err != nil || r.Overall == client.Refuted {
		t.Fatalf("%v: %+v", err, r.Refuted())
	}
}

var _ http.Handler = (*Attester)(nil)
