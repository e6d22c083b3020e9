// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cds "github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/ingress/attester"
)

// own are the identity and the keys of an ingress that do not change.
type own struct {
	cred *cds.Credential
	keys []*ecdsa.PublicKey
}

func (o own) Enrolled() *cds.Credential { return o.cred }
func (o own) Suspect()                  {}
func (o own) Keys() []*ecdsa.PublicKey  { return o.keys }
func (o own) Changed() <-chan struct{}  { return nil }

// The other tests have a double of the ingress; here its own documents are
// served, by the package that the ingress has for it.
func TestDocumentsOfTheIngressItselfAreAccepted(t *testing.T) {
	w := prooftest.New(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := own{w.Credential, []*ecdsa.PublicKey{&other.PublicKey, &key.PublicKey}} // as after a rotation
	a, err := attester.New(attester.Config{
		CDS: w.Client, Identity: id, Keys: id, Attester: w.TEE, Software: "v0-test", Now: time.Now, Rand: mathrand.Int64N, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, proof.PathDiscovery) {
			a.ServeHTTP(rw, r)
			return
		}
		_, _ = io.WriteString(rw, "arrived")
	}))
	host := w.Manifest.IngressHosts()[0]
	server.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t, key, host)}}
	server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, nonce := range []bool{false, true} {
		c := newClient(t, Config{
			Anchor: FromOperators(w.Operators), InsecureSkipWebPKI: true, AllowSimulated: true, FreshEvidence: nonce,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
			},
		})
		resp, err := (&http.Client{Transport: c.Transport()}).Get("https://" + host)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "arrived" {
			t.Errorf("%q, %v", body, err)
		}
		resp.Body.Close()
	}
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey, host string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
