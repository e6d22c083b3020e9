// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// Whoever trusts only the operators finds everything he needs here.
func TestDocumentsOfTheCDSArePassedOn(t *testing.T) {
	w := newWorld(t)
	w.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	w.Publish(nil)
	evidence := w.Credential.Peer.Claims.EvidenceHash
	issuer := policy.DigestOf(w.Credential.TLS.Certificate[1])
	for path, immutable := range map[string]bool{
		"/v1/endorsement": false, "/v1/manifest": false, "/v1/manifest/countersignature": false, "/v1/denylist": false,
		"/v1/denylist/countersignature": false, "/log/checkpoint": false,
		"/v1/document/" + string(w.Signed.Digest): true, "/v1/document/" + string(w.Manifest.Previous): true,
		"/v1/countersignature/" + string(w.Signed.Digest): true, "/v1/certificate/" + string(issuer): true,
		"/v1/evidence/" + hex.EncodeToString(evidence[:]): true, "/log/tile/entries/000.p/2": true, "/log/tile/0/000.p/2": true,
	} {
		resp := w.get(proof.PathCDS + path)
		got := body(t, resp)
		if want := w.Document(path); resp.StatusCode != 200 || !bytes.Equal(got, want) {
			t.Errorf("%s: %s, %.80s, want %.80s", path, resp.Status, got, want)
		}
		if kept := strings.Contains(resp.Header.Get("Cache-Control"), "immutable"); kept != immutable {
			t.Errorf("%s: %s", path, resp.Header.Get("Cache-Control"))
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("ETag") == "" || resp.Header.Get("Content-Type") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, resp.Header)
		}
	}
	e, err := trust.ParseEndorsement(body(t, w.get(proof.PathCDS+"/v1/endorsement")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Verify(w.Manifest, w.Operators, time.Now()); err != nil {
		t.Error(err)
	}
	verifier, err := e.Bundle.LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := translog.OpenCheckpoint(body(t, w.get(proof.PathCDS+"/log/checkpoint")), trust.LogOrigin(w.Manifest.TrustDomain), verifier); err != nil {
		t.Error(err)
	}
}

func TestOnlyPublicDocumentsArePassedOn(t *testing.T) {
	w := newWorld(t)
	digest := string(policytest.Digest("x"))
	for _, path := range []string{
		"/readyz", "/v1", "/v1/", "/v1/manifest/", "/v1/manifest/x", "/v1/document/", "/v1/document/x", "/v1/document/" + digest + "/x", "/v1/document/" + strings.ToUpper(digest),
		"/v1/evidence/" + digest, "/v1/evidence/xyz", "/v1/evidence/../manifest", "/c8s.cds.v1.Attestation/Challenge", "/log", "/log/", "/log/tile", "/log/tile/", "/log/tile/0",
		"/log/tile/0/", "/log/tile/0/../0", "/log/tile/entries/", "/log/tile/999/000", "/log/tile/0//000", "/log/tile/x/000", "/log/tile/0/" + strings.Repeat("x000/", 20) + "000", "/log/checkpoint/",
		"/log/tile/-1/000", "/log/tile/data/000", "/log/tile//0", "/log/tile/00/000", "//v1/manifest", "/v1/beacon%00",
	} {
		if resp := w.get(proof.PathCDS + path); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if n := w.Status().Fetches; n != 0 {
		t.Errorf("the CDS was asked %d times", n)
	}
	for _, path := range []string{"/v1/document/" + digest, "/log/tile/0/x123/456", "/v1/denylist"} {
		for range 3 {
			if resp := w.get(proof.PathCDS + path); resp.StatusCode != 404 || string(body(t, resp)) != CodeNotFound+"\n" {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
	}
	if n := w.Status().Fetches; n != 3 {
		t.Errorf("the CDS was asked %d times for what is not there", n)
	}
}

func TestDocumentsAreAskedForOnce(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if resp := w.get(proof.PathCDS+"/v1/manifest", from(fmt.Sprintf("192.0.2.%d:1", i))); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		})
	}
	all.Wait()
	if n := w.Status().Fetches; n != 1 {
		t.Errorf("asked for %d times", n)
	}
	w.clock.Store(int64(mutableLife))
	w.get(proof.PathCDS + "/v1/manifest")
	immutable := proof.PathCDS + "/v1/document/" + string(w.Signed.Digest)
	w.get(immutable)
	if n := w.Status().Fetches; n != 3 {
		t.Errorf("asked for %d times", n)
	}
	w.clock.Store(int64(1000 * time.Hour))
	w.Stop()
	if resp := w.get(immutable); resp.StatusCode != 200 || resp.Header.Get("Cache-Status") != "" {
		t.Errorf("what cannot change: %s", resp.Status)
	}
}

// A client that learns of a newer manifest from the proof finds it at once.
func TestWhatChangedIsNotServedFromBefore(t *testing.T) {
	w := newWorld(t)
	w.prove()
	w.get(proof.PathCDS + "/v1/manifest")
	w.Fixture = w.Next(t, nil)
	if err := w.Server.Publish(t.Context(), w.Envelope); err != nil {
		t.Fatal(err)
	}
	w.prove()
	if got := body(t, w.get(proof.PathCDS+"/v1/manifest")); !bytes.Equal(got, w.Envelope) {
		t.Error("the manifest from before")
	}
}

func TestWhatIsAskedOfTheCDSIsLimited(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		at := c.Now()
		c.Now = func() time.Time { return at }
		c.Limits = Limits{Fetches: 4, ClientFetches: 1}
	})
	status := func(i int, client string) int {
		return w.get(fmt.Sprintf("%s/v1/document/%s", proof.PathCDS, policytest.Digest(fmt.Sprint(i))), from(client)).StatusCode
	}
	for i := range 4 {
		if got := status(i, "192.0.2.1:1"); got != 404 {
			t.Errorf("%d: %d", i, got)
		}
	}
	if got := status(4, "192.0.2.1:1"); got != 429 {
		t.Errorf("one client: %d", got)
	}
	for i := range 4 {
		if got := status(5+i, "192.0.2.2:1"); got != 404 {
			t.Errorf("%d: %d", i, got)
		}
	}
	if got := status(20, "192.0.2.3:1"); got != 429 {
		t.Errorf("all clients: %d", got)
	}
	if got := status(0, "192.0.2.1:1"); got != 404 {
		t.Errorf("what is at hand: %d", got)
	}
}

func TestTheCacheKeepsToItsBudget(t *testing.T) {
	c := newCache(&Config{Limits: Limits{CacheBytes: 10_000, Fetches: 1, ClientFetches: 1}}, nil)
	put := func(path string, size int) { c.keep(&document{path: path, body: make([]byte, size)}) }
	for i := range 100 {
		put(fmt.Sprintf("/%d", i), 1000)
		if c.bytes > 10_000 {
			t.Fatalf("%d bytes", c.bytes)
		}
		c.held("/0") // is used all the time
	}
	if c.held("/0") == nil || c.held("/99") == nil || c.held("/50") != nil || len(c.entries) != c.order.Len() || len(c.entries) < 5 {
		t.Errorf("%d entries of %d bytes", len(c.entries), c.bytes)
	}
	put("/huge", 6000)
	if c.held("/huge") != nil || c.held("/0") == nil {
		t.Error("one document pushed out the others")
	}
	put("/0", 2000)
	if got := c.held("/0"); len(got.body) != 2000 || len(c.entries) != c.order.Len() {
		t.Errorf("%d bytes under a name that was there", len(got.body))
	}
	total := 0
	for e := c.order.Front(); e != nil; e = e.Next() {
		total += cost(e.Value.(*document))
	}
	if total != c.bytes {
		t.Errorf("%d bytes are counted, %d are held", c.bytes, total)
	}
}

func TestRatesRememberNoMoreClientsThanTheyMay(t *testing.T) {
	r := newRates(rate.Inf, 1, 1, 2)
	now := time.Now()
	for i := range 3 * maxClients {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, wait := r.take(netip.PrefixFrom(addr, 32), now); wait != 0 {
			t.Fatalf("client %d waits %s", i, wait)
		}
		if len(r.clients) > maxClients {
			t.Fatalf("%d clients", len(r.clients))
		}
	}
}

func TestClientsAreCountedByAddress(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32", "[2001:db8::1]:80": "2001:db8::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "": "invalid Prefix", "@": "invalid Prefix",
	} {
		if got := clientOf(remote).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// Everything at once, for the race detector.
func TestServingWhileEverythingChanges(t *testing.T) {
	w := newWorld(t)
	w.prove()
	server := httptest.NewServer(w.Attester)
	defer server.Close()
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, path := range []string{
		proof.PathDiscovery, proof.PathAttestation, nonceOf(1), proof.PathCDS + "/v1/manifest", proof.PathCDS + "/v1/beacon", proof.PathCDS + "/log/checkpoint",
	} {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := http.Get(server.URL + path) //nolint:noctx // ends with the server
				if err != nil {
					t.Error(err)
					return
				}
				if resp.Body.Close(); resp.StatusCode >= 500 {
					t.Errorf("%s: %s", path, resp.Status)
				}
				w.Status()
			}
		})
	}
	for range 5 {
		w.keys.set(w.TLSKey, newKey(t))
		w.prove()
		w.keys.set(w.TLSKey)
		w.Publish(nil)
		w.prove()
	}
	close(stop)
	all.Wait()
}

func FuzzPaths(f *testing.F) {
	for _, path := range []string{"/v1/manifest", "/v1/evidence/" + strings.Repeat("a", 64), "/log/tile/0/x001/234.p/5", "/log/tile/entries/000"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if _, ok := kindOf(path); !ok {
			return
		}
		if strings.Trim(path, "abcdefghijklmnopqrstuvwxyz0123456789/:.-") != "" || strings.Contains(path, "..") || strings.Contains(path, "//") || len(path) > 128 {
			t.Errorf("%q is passed on", path)
		}
	})
}

func FuzzNonce(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if nonce, err := parseNonce(text); err == nil && (len(nonce) < proof.MinNonce || len(nonce) > proof.MaxNonce) {
			t.Errorf("%q is a nonce of %d bytes", text, len(nonce))
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	w := newWorld(b)
	target := proof.PathCDS + "/v1/document/" + string(w.Signed.Digest)
	b.ReportAllocs()
	for b.Loop() {
		w.get(target)
	}
}
