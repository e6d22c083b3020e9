// SPDX-License-Identifier: Apache-2.0

// Package client talks to a CDS that it has verified: no byte is sent before
// the service's evidence satisfies the operator-signed manifest, and no
// manifest is taken that the operators did not sign or that is older than the
// one in force.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/manifestfile"
	"github.com/c8s-dev/c8s/policy"
)

// Codes of refusals this side makes.
const (
	CodeOperatorsNotBound  = "operators-not-bound"
	CodeCertificateForeign = "certificate-foreign"
)

// RefusedError is a refusal with its stable code, by this side or by the CDS.
type RefusedError struct {
	Code, Detail string
	RetryAfter   time.Duration // zero: the CDS does not say when to try again
}

func (e *RefusedError) Error() string {
	if e.Detail == "" {
		return "refused by the CDS: " + e.Code + " (the CDS's log says why)"
	}
	return e.Code + ": " + e.Detail
}

// Config is what a client is given.
type Config struct {
	Addr      string           // host:port of the CDS
	Operators policy.Operators // the trust anchor
	Manifest  *policy.Signed   // in force at start, from LoadManifest
	StatePath string           // file that keeps the manifest in force; empty keeps none
	// Dial replaces the ordinary TCP dialler where set.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Now  func() time.Time
	Log  *slog.Logger
}

// Client talks to one CDS. It is safe for concurrent use.
type Client struct {
	cfg      Config
	manifest atomic.Pointer[policy.Signed]
	adopting sync.Mutex // compare, keep and replace is one step
	pods     podSessions
}

// Credential is a key that never left this process, with its certificate.
type Credential struct {
	TLS   tls.Certificate     // Leaf is set
	Roots []*x509.Certificate // the mesh CA that issued it
	Peer  *ratls.Peer         // what the certificate says
	// RenewAfter is when the CDS wants to be asked for the next one, so that its
	// callers spread; zero if it does not say.
	RenewAfter time.Time
}

// New checks cfg.
func New(cfg Config) (*Client, error) {
	if cfg.Addr == "" || cfg.Manifest == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the CDS client: the configuration lacks a part")
	}
	if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		return nil, fmt.Errorf("preparing the CDS client: address %q: %w", cfg.Addr, err)
	}
	if cfg.Dial == nil {
		d := &net.Dialer{KeepAlive: 15 * time.Second}
		d.SetMultipathTCP(false)
		cfg.Dial = d.DialContext
	}
	c := &Client{cfg: cfg, pods: newPodSessions()}
	c.manifest.Store(cfg.Manifest)
	return c, nil
}

// LoadManifest opens the given envelope and the manifest kept at statePath by
// an earlier run, and returns the newer.
func LoadManifest(statePath string, envelope []byte, operators policy.Operators) (*policy.Signed, error) {
	signed, err := manifestfile.Newest(statePath, envelope, operators)
	if err != nil {
		return nil, err
	}
	return signed, manifestfile.Save(statePath, signed)
}

// Manifest returns the manifest in force.
func (c *Client) Manifest() *policy.Signed { return c.manifest.Load() }

// Publish offers a new operator-signed manifest to the CDS.
func (c *Client) Publish(ctx context.Context, envelope []byte) error {
	s, err := c.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.manifest().Publish(ctx, &api.SignedManifest{Envelope: envelope})
	return explain(err)
}

const (
	watchRetryMin = 200 * time.Millisecond
	watchRetryMax = 10 * time.Second
)

// Watch follows the CDS's manifest until ctx ends, and calls fn with every
// one that is accepted. It reconnects with back-off.
func (c *Client) Watch(ctx context.Context, fn func(*policy.Signed)) error {
	wait := watchRetryMin
	for ctx.Err() == nil {
		began := c.cfg.Now()
		err := c.watchOnce(ctx, fn)
		if ctx.Err() != nil {
			break
		}
		if c.cfg.Now().Sub(began) > watchRetryMax {
			wait = watchRetryMin
		}
		c.cfg.Log.Warn("manifest watch interrupted", "err", err, "retryIn", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, watchRetryMax)
	}
	return ctx.Err()
}

func (c *Client) watchOnce(ctx context.Context, fn func(*policy.Signed)) error {
	s, err := c.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer s.close()
	stream, err := s.manifest().Watch(ctx, &api.WatchRequest{})
	if err != nil {
		return explain(err)
	}
	defer stream.Close()
	for stream.Receive() {
		next, err := c.adopt(stream.Msg().GetEnvelope())
		if err != nil {
			// The CDS cannot make this machine take it, and stays useful otherwise.
			c.cfg.Log.Error("manifest from the CDS refused", "code", policy.CodeOf(err), "err", err)
			continue
		}
		if next != nil {
			fn(next)
		}
	}
	return explain(stream.Err())
}

// adopt puts a manifest in force: nil for one that already is. A machine that
// was away may have missed versions; it takes a later one if its own operators
// signed it, since they may speak for any version.
func (c *Client) adopt(envelope []byte) (*policy.Signed, error) {
	c.adopting.Lock()
	defer c.adopting.Unlock()
	now := c.Manifest()
	next, err := policy.Open(envelope, now.Manifest.Operators)
	if err != nil {
		return nil, err
	}
	decision := policy.Succeeds(now, next)
	switch decision.Code {
	case policy.CodeManifestUnchanged:
		return nil, nil
	case policy.CodeManifestGap:
		c.cfg.Log.Warn("manifest versions were missed", "from", now.Manifest.Version, "to", next.Manifest.Version)
	default:
		if err := decision.Err(); err != nil {
			return nil, err
		}
	}
	if c.cfg.StatePath != "" {
		if err := manifestfile.Save(c.cfg.StatePath, next); err != nil {
			return nil, err
		}
	}
	c.manifest.Store(next)
	return next, nil
}

// explain turns the CDS's code into a RefusedError.
func explain(err error) error {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return err
	}
	switch remote.Code() {
	case connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		if connect.IsWireError(err) {
			return &RefusedError{Code: remote.Message()}
		}
	}
	return err
}
