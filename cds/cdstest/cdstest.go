// SPDX-License-Identifier: Apache-2.0

// Package cdstest runs a CDS in the process of a test, with everything real but
// the machines, which are simulated, and the store, which is in memory. It can
// be stopped, robbed of its memory and started again.
package cdstest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// patience is how long a CDS may take to become ready.
const patience = 20 * time.Second

// CDS is one replica and the manifest it was started with.
type CDS struct {
	*policytest.Fixture // accepts the simulated machines "cds" and "node"

	Addr   string            // where it listens; another one after every start
	Store  *storetest.Memory // survives Stop
	Edit   func(*cds.Config) // of the next starts; may be nil
	Server *cds.Server

	t    testing.TB
	log  *buffer
	stop func()
}

// New starts a CDS and waits until it issues certificates.
func New(t testing.TB, opts ...policytest.Option) *CDS {
	t.Helper()
	c := Prepare(t, opts...)
	c.Start(c.Attester("cds"))
	return c
}

// Prepare makes everything but the running CDS.
func Prepare(t testing.TB, opts ...policytest.Option) *CDS {
	t.Helper()
	machines := policytest.With(func(m *policy.Manifest) {
		own := launchedFor(m.Operators)
		simtest.Accept(simtest.New(t, "cds", own), simtest.New(t, "node", own))(m)
	})
	return &CDS{
		Fixture: policytest.New(t, append([]policytest.Option{machines}, opts...)...),
		Store:   storetest.NewMemory(), t: t, log: &buffer{}, stop: func() {},
	}
}

func launchedFor(o policy.Operators) func(*sim.Options) {
	return func(s *sim.Options) { s.HostData = o.Digest() }
}

// Attester starts a simulated machine, launched for the fixture's operators,
// after edits.
func (c *CDS) Attester(machine string, edits ...func(*sim.Options)) attest.Attester {
	c.t.Helper()
	return simtest.Attester(c.t, machine, append([]func(*sim.Options){launchedFor(c.Operators)}, edits...)...)
}

// Forgetful is an attester whose TEE seals nothing: its CDS cannot find the
// secret again after a restart.
type Forgetful struct{ attest.Attester }

// Start runs the CDS and waits until it issues certificates.
func (c *CDS) Start(att attest.Attester) {
	c.t.Helper()
	c.Launch(att)
	c.Ready()
}

// Ready waits until the CDS issues certificates.
func (c *CDS) Ready() {
	c.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); c.Server.Ready() != nil; <-tick.C {
		if time.Now().After(end) {
			c.t.Fatalf("the CDS is not ready: %v\n%s", c.Server.Ready(), c.Log())
		}
	}
}

// Launch runs the CDS without waiting for it. What it is to forget of its last
// run must be gone from Store before.
func (c *CDS) Launch(att attest.Attester) {
	c.t.Helper()
	c.Stop()
	c.Store = c.Store.Reopen()
	cfg := cds.Config{
		Attester: att, Manifest: c.Signed, Operators: c.Operators, Store: c.Store, Name: "one",
		Registry: prometheus.NewRegistry(), Wall: time.Now, Log: slog.New(slog.NewJSONHandler(c.log, nil)),
	}
	if c.Edit != nil {
		c.Edit(&cfg)
	}
	server, err := cds.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(c.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln) }()
	c.Server, c.Addr = server, ln.Addr().String()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			c.t.Errorf("Serve: %v", err)
		}
	})
	c.t.Cleanup(c.stop)
}

// Stop ends the CDS. Its store stays.
func (c *CDS) Stop() { c.stop() }

// Client returns a client that knows the fixture's manifest and remembers
// nothing.
func (c *CDS) Client() *client.Client {
	c.t.Helper()
	found, err := client.New(client.Config{
		Addrs: []string{c.Addr}, Operators: c.Operators, Manifest: c.Signed, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// TrustIn writes what an operator has on the desk: operators.json, and the
// fixture's manifest as manifest.signed.json.
func (c *CDS) TrustIn(dir string) {
	c.t.Helper()
	operators, err := json.Marshal(c.Operators)
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "operators.json"), operators, 0o600),
		os.WriteFile(filepath.Join(dir, "manifest.signed.json"), c.Envelope, 0o600))
	if err != nil {
		c.t.Fatal(err)
	}
}

// Enrol certifies the machine "node".
func (c *CDS) Enrol() *client.Credential {
	c.t.Helper()
	cred, err := c.Client().EnrolNode(c.t.Context(), c.Attester("node"))
	if err != nil {
		c.t.Fatal(err)
	}
	return cred
}

// Log is what the CDS has logged.
func (c *CDS) Log() string { return c.log.String() }

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
