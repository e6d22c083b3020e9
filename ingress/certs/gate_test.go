// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// gate stands before a CA: it counts requests by kind, and can hold or answer
// them itself.
type gate struct {
	pebble    *pebbletest.Server
	directory string
	roots     []byte // PEM
	proxy     http.Handler

	mu    sync.Mutex
	count map[string]int
	own   func(w http.ResponseWriter, r *http.Request, kind string) bool
}

func newGate(t *testing.T, p *pebbletest.Server) *gate {
	t.Helper()
	target, err := url.Parse(p.Directory)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{pebble: p, count: map[string]int{}}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "https", target.Host },
		Transport: p.Client().Transport, ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewTLSServer(g)
	t.Cleanup(server.Close)
	g.directory = server.URL + "/dir"
	g.roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return g
}

// kind names a request as RFC 8555 does.
func kind(path string) string {
	for prefix, name := range map[string]string{
		"/dir": "directory", "/nonce-plz": "newNonce", "/sign-me-up": "newAccount", "/order-plz": "newOrder", "/my-order": "order",
		"/authZ": "authorization", "/chalZ": "challenge", "/finalize-order": "finalize", "/certZ": "certificate",
	} {
		if strings.HasPrefix(path, prefix) {
			return name
		}
	}
	return path
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kind(r.URL.Path)
	g.mu.Lock()
	g.count[kind]++
	own := g.own
	g.mu.Unlock()
	if own == nil || !own(w, r, kind) {
		g.proxy.ServeHTTP(w, r)
	}
}

// answer has f answer the requests for which it returns true; nil none.
func (g *gate) answer(f func(w http.ResponseWriter, r *http.Request, kind string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own = f
}

func (g *gate) counted(kind string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count[kind]
}

// problem answers as a CA does that refuses.
func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:`+kind+`","detail":"`+detail+`"}`)
}
