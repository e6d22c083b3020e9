// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole C8s cluster on one machine: a lab of network
// namespaces, one CDS process and one node daemon per lab node, all of them
// the real binary with the simulated TEE.
//
// Invariant: only the public surface is used (files, flags, the admin socket,
// the CDS's API), so what holds in a cluster of this package holds for a
// user's. The demo, the end-to-end tests and the benchmarks share it.
package cluster

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/lab"
)

// Where things listen inside the lab.
const (
	CDSPort     = 15009
	MetricsPort = 15020
)

// TrustDomain of every cluster made here.
const TrustDomain = "demo.c8s.example"

// Options says what New builds.
type Options struct {
	Binary    string // the c8s executable
	Name      string // of the lab
	Nodes     []string
	Outside   []string          // hosts next door; the CDS's host is added
	Workloads []policy.Workload // of the first manifest
	NodeFlags []string          // further flags of every node daemon
	CDSFlags  []string          // further flags of the CDS
	Impostors map[string]string // nodes that run another binary; New does not wait for them
	Log       *slog.Logger
}

// Cluster is a running cluster.
type Cluster struct {
	Lab       *lab.Lab
	Nodes     []*Node
	Operators policy.Operators

	opts        Options
	dir         string
	simDir      string
	measurement string
	key         crypto.Signer
	manifest    *policy.Manifest
	digest      policy.Digest
	cds         *process
}

const cdsHost = "cds"

// New builds the lab, signs a first manifest and starts the CDS and every
// node daemon. It returns when all of them are enrolled. Close, or the end of
// ctx, removes everything.
func New(ctx context.Context, o Options) (*Cluster, error) {
	specs := make([]lab.NodeSpec, len(o.Nodes))
	for i, name := range o.Nodes {
		specs[i].Name = name
	}
	if _, err := lab.Sweep(); err != nil {
		return nil, fmt.Errorf("removing what killed runs left: %w", err)
	}
	l, err := lab.New(ctx, lab.Options{Name: o.Name, Nodes: specs, Outside: append([]string{cdsHost}, o.Outside...), Log: o.Log})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: l, opts: o, dir: l.Dir(), simDir: filepath.Join(l.Dir(), "sim")}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.firstManifest(); err != nil {
		return err
	}
	if err := c.startCDS(ctx); err != nil {
		return err
	}
	for _, n := range c.Lab.Nodes() {
		node, err := c.newNode(n)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, node)
		if err := node.Start(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if _, impostor := c.opts.Impostors[n.Lab.Name]; impostor {
			continue
		}
		if err := n.WaitEnrolled(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every process and removes the lab.
func (c *Cluster) Close() error { return c.Lab.Close() }

// Measurement is the launch digest that the manifest names, 96 hex digits.
func (c *Cluster) Measurement() string { return c.measurement }

// Manifest returns a copy of the manifest last published, for changing.
func (c *Cluster) Manifest() *policy.Manifest {
	m := *c.manifest
	m.Workloads = append([]policy.Workload(nil), m.Workloads...)
	return &m
}

// Node returns the node of that name, nil when there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Lab.Name == name {
			return n
		}
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// firstManifest makes the operator's key, the simulated vendor and the first
// signed manifest, as an operator would with `c8s manifest`.
func (c *Cluster) firstManifest() error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	c.key = key
	operator, err := policy.NewOperatorKey("operator", key.Public())
	if err != nil {
		return err
	}
	c.Operators = policy.Operators{Threshold: 1, Keys: []policy.OperatorKey{operator}}
	machine := devtee.Options{Dir: c.simDir, Binary: c.opts.Binary, Operators: c.Operators}
	substrate, err := devtee.Substrate(machine)
	if err != nil {
		return err
	}
	c.measurement = substrate.Measurements[0]
	raw, err := json.Marshal(c.Operators)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("operators.json"), raw, 0o600); err != nil {
		return err
	}
	return c.sign(&policy.Manifest{
		Schema: policy.Schema, TrustDomain: TrustDomain, Version: 1,
		Operators: c.Operators, Substrates: []policy.Substrate{substrate}, Workloads: c.opts.Workloads,
	})
}

// sign writes m as the manifest file. The CDS notices the new file, checks it
// like any publication, and pushes it to the nodes.
func (c *Cluster) sign(m *policy.Manifest) error {
	payload, err := policy.Encode(m)
	if err != nil {
		return err
	}
	envelope, err := policy.Sign(payload, c.key)
	if err != nil {
		return err
	}
	tmp := c.path("manifest.tmp")
	if err := os.WriteFile(tmp, envelope, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, c.path("manifest.dsse.json")); err != nil {
		return err
	}
	c.manifest, c.digest = m, policy.DigestOf(payload)
	return nil
}

// Publish signs the next version of the manifest after change has edited it,
// and waits until every running node has it in force.
func (c *Cluster) Publish(ctx context.Context, change func(*policy.Manifest)) error {
	next := c.Manifest()
	change(next)
	next.Version, next.Previous = c.manifest.Version+1, c.digest
	if err := c.sign(next); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		if err := until(ctx, "the manifest to reach "+n.Lab.Name, func() error {
			s, err := n.Status(ctx)
			if err != nil {
				return err
			}
			if s.Manifest.Version < next.Version {
				return fmt.Errorf("still at version %d", s.Manifest.Version)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) cdsAddr() string {
	return netip.AddrPortFrom(c.Lab.Outside(cdsHost).Addr4, CDSPort).String()
}

func (c *Cluster) startCDS(ctx context.Context) error {
	host := c.Lab.Outside(cdsHost)
	c.cds = newProcess("cds", c.path("cds.log"), func() *lab.Cmd {
		args := []string{
			"cds",
			"--listen", c.cdsAddr(), "--operators", c.path("operators.json"), "--manifest", c.path("manifest.dsse.json"),
			"--state-dir", c.path("cds"), "--tee", "sim", "--sim-dir", c.simDir, "--sim-machine", cdsHost,
			"--metrics-address", fmt.Sprintf("127.0.0.1:%d", MetricsPort),
		}
		return host.Command(ctx, c.opts.Binary, append(args, c.opts.CDSFlags...)...)
	})
	return c.cds.start()
}

// CDSLog returns the last lines of the CDS's log.
func (c *Cluster) CDSLog() string { return string(c.cds.tail(8000)) }

// StopCDS kills the CDS; StartCDS brings it back with its state.
func (c *Cluster) StopCDS() error { return c.cds.kill() }

// StartCDS starts the CDS again after StopCDS.
func (c *Cluster) StartCDS() error { return c.cds.start() }

// until polls check until it succeeds, for at most a minute: everything here
// takes milliseconds on an idle machine.
func until(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if errors.Is(err, errEnded) {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %w)", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
