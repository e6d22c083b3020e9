// SPDX-License-Identifier: Apache-2.0

// Package client talks to services behind an attested ingress from outside of
// the mesh. Its invariant: no byte of a request is written to a connection
// before the TLS key at its other end was proven to be one that was born in a
// machine the operators accept, and none once that proof is too old.
//
// The caller trusts the operators' public keys, or a measurement of the CDS.
// Everything else is read from the ingress itself and verified link by link; who
// serves a document is never a reason to believe it. docs/client.md tells the
// argument.
package client

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/receipt"
)

const (
	// defaultWithin is how long dialling and proving one connection may take.
	defaultWithin = 30 * time.Second
	// renewEvery is the rhythm in which an ingress makes proofs.
	renewEvery = time.Minute
)

// Config is what a client is given. Fields without "required" have a default.
type Config struct {
	Anchor   Anchor        // required: who is trusted
	StateDir string        // keeps what must not be older after a restart; empty keeps it in memory
	MaxAge   time.Duration // of the beacon that a proof was made after; 5 minutes

	// Roots are for the web PKI, nil for the system's. The proof needs none of
	// it: with InsecureSkipWebPKI any certificate for the proven key will do.
	Roots              *x509.CertPool
	InsecureSkipWebPKI bool

	// What may be missing. A manifest that asks for no witnesses, or for no
	// collateral, is the operators' choice and accepted unless RequireAll.
	AllowSimulated   bool // hardware that proves nothing
	AllowUnwitnessed bool // fewer witnesses of the log than the manifest asks for
	RequireAll       bool // refuse whatever is not proven

	FreshEvidence bool // ask the TEE for evidence for this client alone; rate limited

	Receipts  bool                                 // ask for signed answers: see ReceiptOf
	OnReceipt func(*receipt.Receipt)               // called with each, which is asked for then
	OnReport  func(ctx context.Context, r *Report) // called after each judgement of a connection

	OnlyHTTP1 bool // never HTTP/2

	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Within time.Duration                              // limit for dialling and proving one connection; 30 seconds
	Rand   io.Reader                                  // for nonces; crypto/rand
	Now    func() time.Time                           // time.Now
	Sleep  func(context.Context, time.Duration) error // returns early with the context's error; a timer
	Log    *slog.Logger                               // discards
}

// Client verifies and then uses attested services. It is safe for concurrent
// use.
type Client struct {
	cfg   Config
	cache *appraise.Cache

	mu      sync.Mutex
	closed  bool
	origins map[string]*origin
	memory  map[string]*memory // by trust domain
}

// New checks cfg.
func New(cfg Config) (*Client, error) {
	const doing = "preparing the client"
	if err := cfg.Anchor.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if cfg.MaxAge < 0 || cfg.Within < 0 {
		return nil, fmt.Errorf("%s: a negative duration", doing)
	}
	if cfg.AllowSimulated && cfg.RequireAll || cfg.AllowUnwitnessed && cfg.RequireAll {
		return nil, fmt.Errorf("%s: everything is required, and something may be missing", doing)
	}
	cfg.Receipts = cfg.Receipts || cfg.OnReceipt != nil
	if cfg.MaxAge == 0 {
		cfg.MaxAge = proof.DefaultMaxAge
	}
	if cfg.Within == 0 {
		cfg.Within = defaultWithin
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, cache: appraise.NewCache(8), origins: map[string]*origin{}, memory: map[string]*memory{}}, nil
}

// Transport returns the http.RoundTripper of this client. It accepts https URLs
// only.
func (c *Client) Transport() http.RoundTripper { return roundTripper{c} }

// Close closes the connections. Requests under way fail, and so do later ones.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	origins := c.origins
	c.origins = map[string]*origin{}
	c.mu.Unlock()
	for _, o := range origins {
		o.close()
	}
	return nil
}

var errClosed = errors.New("the client is closed")

// CloseIdleConnections closes connections without requests.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.origins {
		o.closeIdle(0)
	}
}

// originOf returns the origin of an address, host:port.
func (c *Client) originOf(host, port string) (*origin, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	addr := net.JoinHostPort(host, port)
	o := c.origins[addr]
	if o == nil {
		o = newOrigin(c, host, addr)
		c.origins[addr] = o
	}
	return o, nil
}

// memoryOf returns what is known of a trust domain's past. Its name may be a
// stranger's: nothing is kept under it before keep.
func (c *Client) memoryOf(trustDomain string) (*memory, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.memory[trustDomain]; m != nil {
		return m, nil
	}
	return newMemory(c.cfg.StateDir, trustDomain)
}

// keep is called with what was verified.
func (c *Client) keep(next seen) error {
	c.mu.Lock()
	m := c.memory[next.TrustDomain]
	if m == nil {
		var err error
		if m, err = newMemory(c.cfg.StateDir, next.TrustDomain); err != nil {
			c.mu.Unlock()
			return err
		}
		c.memory[next.TrustDomain] = m
	}
	c.mu.Unlock()
	return m.advance(next)
}
