// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

const challengePath = "/.well-known/acme-challenge/" // RFC 8555 section 8.3

// challenges are what CAs are about to look for. The zero value is empty.
type challenges struct {
	mu     sync.RWMutex
	certs  map[string]*tls.Certificate // by name
	tokens map[string]answer           // by token
}

type answer struct{ name, text string }

// showCertificate and showToken put an answer up; the function returned takes
// it down.
func (c *challenges) showCertificate(name string, cert *tls.Certificate) (takeDown func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.certs == nil {
		c.certs = map[string]*tls.Certificate{}
	}
	c.certs[name] = cert
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.certs, name)
	}
}

func (c *challenges) showToken(name, token, text string) (takeDown func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		c.tokens = map[string]answer{}
	}
	c.tokens[token] = answer{name: name, text: text}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.tokens, token)
	}
}

func (c *challenges) certificate(name string) *tls.Certificate {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.certs[name]
}

func (c *challenges) answer(host, token string) (string, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	a, ok := c.tokens[token]
	return a.text, ok && a.name == strings.ToLower(host)
}

// HTTPHandler answers HTTP-01 challenges of this store and leaves the rest to
// next, also challenges that somebody behind this ingress is to answer.
func (s *Store) HTTPHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.URL.Path, challengePath)
		if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		text, ok := s.challenges.answer(r.Host, token)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, text) // a CA that is gone asks again
	})
}

// maxToken is twice what CAs send.
const maxToken = 128

// validToken wants what RFC 8555 section 8.3 does: base64url characters only.
func validToken(token string) bool {
	return token != "" && len(token) <= maxToken &&
		strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
