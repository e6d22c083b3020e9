// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// client is what is known about a client's connection. It is in the context of
// every request on it, and of its handshake.
type client struct {
	mu   sync.Mutex
	key  [sha256.Size]byte
	sure bool
	held []*hostState // hosts that count this connection
	gone bool

	resets *rate.Limiter // requests that it gave up
	cut    func()        // ends the connection
}

// What a client may give up of its requests on a connection, before it is taken
// for one that makes us work for nothing (CVE-2023-44487). net/http bounds only
// how many run at once.
const (
	resetsPerSecond = 20
	resetsBurst     = 500
)

func newClient(cut func()) *client {
	return &client{resets: rate.NewLimiter(resetsPerSecond, resetsBurst), cut: cut}
}

type clientKey struct{}

func withClient(ctx context.Context, c *client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(ctx context.Context) *client {
	c, _ := ctx.Value(clientKey{}).(*client)
	return c
}

// KeyOf returns the SHA-256 of the SubjectPublicKeyInfo that this request's
// connection was answered with. A resumed session has that of its first
// connection, which is what the client goes by.
func KeyOf(ctx context.Context) (spki [sha256.Size]byte, ok bool) {
	c := clientOf(ctx)
	if c == nil {
		return spki, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key, c.sure
}

func (c *client) answeredWith(key [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.sure = key, true
}

// extraPrefix marks what we add to sessions; crypto/tls and quic-go add theirs.
const extraPrefix = "c8s/ingress/spki/v1\x00"

// newTLS makes the configuration for clients: whatever a browser of the last
// years speaks, authenticated encryption only. Keys of session tickets are
// crypto/tls's own: made in this process, and new every day.
func newTLS(cfg *Config) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		GetCertificate: cfg.Certs.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
	}
	if cfg.TLS13 {
		base.MinVersion = tls.VersionTLS13
	}
	tickets := base.Clone() // its own: GetConfigForClient must not lead back here
	outer := base.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := clientOf(hello.Context())
		if c == nil {
			return nil, errors.New("answering a client: its connection is not known")
		}
		return forClient(base, tickets, cfg.Certs, c), nil
	}
	return outer
}

// forClient notes the key that the client's connection is answered with, in
// the session too: a resumed one shows no certificate.
func forClient(base, tickets *tls.Config, certs Certificates, c *client) *tls.Config {
	t := base.Clone()
	t.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := certs.GetCertificate(hello)
		if err != nil {
			return nil, err
		}
		key, err := spkiOf(cert)
		if err != nil {
			return nil, err
		}
		c.answeredWith(key)
		return cert, nil
	}
	t.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		c.mu.Lock()
		key := slices.Concat([]byte(extraPrefix), c.key[:])
		c.mu.Unlock()
		ss.Extra = append(ss.Extra, key)
		return tickets.EncryptTicket(cs, ss)
	}
	t.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := tickets.DecryptTicket(identity, cs)
		if err != nil || ss == nil {
			return nil, err
		}
		for _, extra := range ss.Extra {
			if len(extra) == len(extraPrefix)+sha256.Size && string(extra[:len(extraPrefix)]) == extraPrefix {
				c.answeredWith([sha256.Size]byte(extra[len(extraPrefix):]))
				return ss, nil
			}
		}
		return nil, nil // of nobody knows which key: a full handshake
	}
	return t
}

func spkiOf(cert *tls.Certificate) (key [sha256.Size]byte, err error) {
	leaf := cert.Leaf
	if leaf == nil {
		if len(cert.Certificate) == 0 {
			return key, errors.New("answering a client: the certificate is empty")
		}
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return key, fmt.Errorf("answering a client: %w", err)
		}
	}
	return sha256.Sum256(leaf.RawSubjectPublicKeyInfo), nil
}
