// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
)

func TestDiscoverySaysWhereEverythingIs(t *testing.T) {
	w := newWorld(t)
	resp := w.get(proof.PathDiscovery)
	d, err := proof.ParseDiscovery(body(t, resp))
	if err != nil || d.TrustDomain != w.Manifest.TrustDomain || d.Refresh != 60 {
		t.Errorf("%+v, %v", d, err)
	}
	if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v", resp.Header)
	}
}

func TestOneReportServesEverybody(t *testing.T) {
	w := newWorld(t)
	w.prove()
	asked := w.tee.asked.Load()
	first := w.get(proof.PathAttestation)
	text := body(t, first)
	etag := first.Header.Get("ETag")
	if first.Header.Get("Cache-Control") != "private, no-cache" || etag == "" || first.ContentLength != int64(len(text)) {
		t.Errorf("%v", first.Header)
	}
	for range 50 {
		if again := body(t, w.get(proof.PathAttestation)); !bytes.Equal(again, text) {
			t.Fatal("another document")
		}
	}
	head := w.get(proof.PathAttestation, method(http.MethodHead))
	if head.StatusCode != http.StatusOK || len(body(t, head)) != 0 || head.ContentLength != int64(len(text)) {
		t.Errorf("HEAD: %s, %d bytes", head.Status, head.ContentLength)
	}
	for header, want := range map[string]int{etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, "": 200} {
		resp := w.get(proof.PathAttestation, func(r *http.Request) { r.Header.Set("If-None-Match", header) })
		if n := len(body(t, resp)); resp.StatusCode != want || (want == 304) != (n == 0) {
			t.Errorf("If-None-Match %s: %s with %d bytes, want %d", header, resp.Status, n, want)
		}
	}
	if now := w.tee.asked.Load(); now != asked {
		t.Errorf("requests asked the TEE %d times", now-asked)
	}
}

func TestTheConnectionsKeyIsProven(t *testing.T) {
	other, stranger := newKey(t), newKey(t)
	var connection *[32]byte
	w := newWorld(t, func(c *Config) {
		c.KeyOf = func(*http.Request) ([32]byte, bool) {
			if connection == nil {
				return [32]byte{}, false
			}
			return *connection, true
		}
	})
	if resp := w.get(proof.PathAttestation); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || string(body(t, resp)) != CodeNoProof+"\n" {
		t.Errorf("before the first proof: %s", resp.Status)
	}
	w.keys.set(w.TLSKey, other)
	w.prove()
	mine, others, strangers := prooftest.SPKI(t, &w.TLSKey.PublicKey), prooftest.SPKI(t, &other.PublicKey), prooftest.SPKI(t, &stranger.PublicKey)
	named := func(key [32]byte) string { return proof.PathAttestation + "?key=" + hex.EncodeToString(key[:]) }
	for _, c := range []struct {
		name       string
		connection *[32]byte
		target     string
		status     int
		code       string
		proves     [32]byte
	}{
		{"the connection's", &mine, proof.PathAttestation, 200, "", mine},
		{"the connection's, whatever is asked for", &others, named(mine), 200, "", others},
		{"a key that is new", &strangers, proof.PathAttestation, 503, CodeNoProof, [32]byte{}},
		{"a named one", nil, named(others), 200, "", others},
		{"none named of two", nil, proof.PathAttestation, 400, CodeKeyNeeded, [32]byte{}},
		{"one that nobody has", nil, named(strangers), 404, CodeKeyUnknown, [32]byte{}},
		{"no key", nil, proof.PathAttestation + "?key=xyz", 404, CodeKeyUnknown, [32]byte{}},
	} {
		connection = c.connection
		if c.status != 200 {
			if resp := w.get(c.target); resp.StatusCode != c.status || string(body(t, resp)) != c.code+"\n" {
				t.Errorf("%s: %s, want %d", c.name, resp.Status, c.status)
			}
			continue
		}
		w.attestation(c.target, func(g *proof.Against) { g.TLSKey = c.proves })
	}
}

func TestNoncesAskTheTEE(t *testing.T) {
	w := newWorld(t)
	w.prove()
	for _, n := range []int{proof.MinNonce, proof.MaxNonce} {
		nonce := bytes.Repeat([]byte{byte(n)}, n)
		target := proof.PathAttestation + "?nonce=" + base64.RawURLEncoding.EncodeToString(nonce)
		asked := w.tee.asked.Load()
		w.attestation(target, func(g *proof.Against) { g.Nonce = nonce })
		if now := w.tee.asked.Load(); now != asked+1 {
			t.Errorf("the TEE was asked %d times", now-asked)
		}
	}
	asked := w.tee.asked.Load()
	for _, bad := range []string{"", "AAAA", strings.Repeat("A", 21), strings.Repeat("A", 87), "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAB", "+AAAAAAAAAAAAAAAAAAAAA", strings.Repeat("A", 1000)} {
		if resp := w.get(proof.PathAttestation + "?nonce=" + bad); resp.StatusCode != 400 || string(body(t, resp)) != CodeNonce+"\n" {
			t.Errorf("nonce %.30q: %s", bad, resp.Status)
		}
	}
	if resp := w.get(proof.PathAttestation+"?nonce=AAAAAAAAAAAAAAAAAAAAAA", method(http.MethodHead)); resp.StatusCode != 200 {
		t.Errorf("HEAD: %s", resp.Status)
	}
	if now := w.tee.asked.Load(); now != asked {
		t.Errorf("the TEE was asked %d times for nothing", now-asked)
	}
}

// nonceOf returns a target with a nonce of its own.
func nonceOf(i int) string {
	return proof.PathAttestation + "?nonce=" + base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("nonce %026d", i)))
}

func TestNoncesAreLimited(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		now := c.Now()
		ahead := time.Duration(0)
		c.Now = func() time.Time { return now.Add(ahead) } // time stands still
		c.Limits = Limits{NonceBurst: 3, ClientNonceBurst: 2}
	})
	w.prove()
	expect := func(client string, status int, retry string) {
		t.Helper()
		resp := w.get(nonceOf(1), from(client))
		if resp.StatusCode != status || resp.Header.Get("Retry-After") != retry {
			t.Errorf("%s: %s, Retry-After %q, want %d, %q", client, resp.Status, resp.Header.Get("Retry-After"), status, retry)
		}
	}
	expect("192.0.2.1:1", 200, "")
	expect("192.0.2.1:2", 200, "")
	expect("192.0.2.1:3", 429, "10") // his own
	expect("[2001:db8::1]:1", 200, "")
	expect("[2001:db8::ffff]:1", 429, "2") // everybody's, and it is the same network
	expect("192.0.2.2:1", 429, "2")
	if s := w.Status(); s.Nonces != 3 || s.NoncesDenied != 3 {
		t.Errorf("%+v", s)
	}
	if asked := w.tee.asked.Load(); asked != 4 {
		t.Errorf("the TEE was asked %d times", asked)
	}
}

// Whatever is asked at once, the TEE is asked one thing at a time, and no more
// wait than there may.
func TestTheTEEIsAskedOneThingAtATime(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Limits = Limits{NonceEvery: time.Nanosecond, ClientNonceEvery: time.Nanosecond, NonceBurst: 100, ClientNonceBurst: 100, NonceQueue: 3}
	})
	w.prove()
	w.tee.block = make(chan struct{})
	got := make(chan int, 20)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { got <- w.get(nonceOf(i)).StatusCode })
	}
	for range 16 { // a place and three that wait; all others are sent away while the TEE still thinks
		if status := <-got; status != http.StatusTooManyRequests {
			t.Errorf("status %d", status)
		}
	}
	proven := make(chan error, 1)
	go func() { proven <- w.Prove(t.Context()) }()
	close(w.tee.block)
	all.Wait()
	for range 4 {
		if status := <-got; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
	if err := <-proven; err != nil {
		t.Error(err)
	}
	if most := w.tee.most.Load(); most != 1 {
		t.Errorf("%d questions at once", most)
	}
}

func TestATEEThatFailsIsSaidWithoutDetail(t *testing.T) {
	w := newWorld(t)
	w.prove()
	w.tee.use(nil, fmt.Errorf("secret detail"))
	resp := w.get(nonceOf(1))
	if text := string(body(t, resp)); resp.StatusCode != 503 || text != CodeTEE+"\n" {
		t.Errorf("%s %s", resp.Status, text)
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{
		"/", "/.well-known", proof.PathDiscovery + "/", proof.PathDiscovery + "x", proof.PathStatus, proof.PathStatus + ".json", proof.PathAttestation + "/", proof.PathCDS, proof.PathCDS + "/",
	} {
		if resp := w.get(path); resp.StatusCode != 404 || string(body(t, resp)) != CodeNotFound+"\n" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for _, name := range []string{"POST", "PUT", "DELETE", "CONNECT", "X"} {
		resp := w.get(proof.PathDiscovery, method(name))
		if resp.StatusCode != 405 || resp.Header.Get("Allow") == "" {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	preflight := w.get(proof.PathAttestation, method("OPTIONS"))
	if preflight.StatusCode != 204 || preflight.Header.Get("Access-Control-Allow-Methods") != "GET, HEAD" || preflight.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%s %v", preflight.Status, preflight.Header)
	}
	page := newWorld(t, func(c *Config) {
		c.Status = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	})
	for _, path := range []string{proof.PathStatus, proof.PathStatus + ".json"} {
		if resp := page.get(path); string(body(t, resp)) != path || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func BenchmarkAttestation(b *testing.B) {
	w := newWorld(b)
	w.prove()
	b.ReportMetric(float64(len(w.shown.Load().only.body)), "bytes")
	b.ReportAllocs()
	for b.Loop() {
		w.get(proof.PathAttestation)
	}
}

func BenchmarkNonce(b *testing.B) {
	w := newWorld(b, func(c *Config) {
		c.Limits = Limits{NonceEvery: time.Nanosecond, ClientNonceEvery: time.Nanosecond}
	})
	w.prove()
	for b.Loop() {
		if resp := w.get(nonceOf(1)); resp.StatusCode != 200 {
			b.Fatal(resp.Status)
		}
	}
}
