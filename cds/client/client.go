// SPDX-License-Identifier: Apache-2.0

// Package client talks to a CDS that it has verified: no byte is sent before
// the service's evidence satisfies the operator-signed manifest; no manifest
// and no deny list is taken that the operators did not sign or that is older
// than the one in force; no certificate is used that is not in the log; and a
// log that was once seen is never accepted shorter or different.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/policy"
)

// The files in a client's state folder.
const (
	manifestFile   = kept.ManifestFile
	denyListFile   = "denylist.dsse.json"
	checkpointFile = "checkpoint"
	bundleFile     = "cds.json"
)

// Config is what a client is given.
type Config struct {
	Addrs     []string         // host:port of each replica; any will do
	Operators policy.Operators // the trust anchor
	Manifest  *policy.Signed   // to start from; a newer one in StateDir wins
	StateDir  string           // keeps what must not be older after a restart; empty keeps nothing
	// Dial replaces the ordinary TCP dialler where set.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Now  func() time.Time
	Log  *slog.Logger
}

// Client talks to the replicas of one CDS. It is safe for concurrent use.
type Client struct {
	cfg      Config
	manifest atomic.Pointer[policy.Signed]
	adopting sync.Mutex // compare, keep and replace is one step
	denyList *kept.DenyList
	memory   *memory
	replicas *replicas
	pods     podSessions
}

// New checks cfg and reads what an earlier run kept.
func New(cfg Config) (*Client, error) {
	if len(cfg.Addrs) == 0 || cfg.Manifest == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing the CDS client: the configuration lacks a part")
	}
	for _, addr := range cfg.Addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("preparing the CDS client: address %q: %w", addr, err)
		}
	}
	if cfg.Dial == nil {
		d := &net.Dialer{KeepAlive: 15 * time.Second}
		d.SetMultipathTCP(false)
		cfg.Dial = d.DialContext
	}
	c := &Client{cfg: cfg, replicas: newReplicas(cfg.Addrs, cfg.Now), pods: newPodSessions()}
	return c, c.recall()
}

// recall reads the state folder.
func (c *Client) recall() (err error) {
	signed := c.cfg.Manifest
	if dir := c.cfg.StateDir; dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the state folder: %w", err)
		}
		if signed, err = kept.NewestManifest(c.path(manifestFile), signed.Envelope, c.cfg.Operators); err != nil {
			return err
		}
		if err := kept.SaveManifest(c.path(manifestFile), signed); err != nil {
			return err
		}
	}
	c.manifest.Store(signed)
	if c.denyList, err = kept.OpenDenyList(c.path(denyListFile), signed.Manifest.TrustDomain, c.cfg.Operators, signed.Manifest.Operators); err != nil {
		return err
	}
	c.memory, err = newMemory(c)
	return err
}

// path is a file of the state folder, empty without one.
func (c *Client) path(name string) string {
	if c.cfg.StateDir == "" {
		return ""
	}
	return filepath.Join(c.cfg.StateDir, name)
}

// Manifest returns the manifest in force.
func (c *Client) Manifest() *policy.Signed { return c.manifest.Load() }

// DenyList returns the deny list in force, nil while there never was one.
func (c *Client) DenyList() *policy.SignedDenyList { return c.denyList.InForce() }
