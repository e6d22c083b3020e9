// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole C8s cluster on one machine: a lab of network
// namespaces, one CDS process and one node daemon per lab node, all of them
// the real binary with the simulated TEE.
//
// The CDS is one replica that keeps a file, or several that share an etcd whose
// members are real too, each in a namespace of its own. Every process can be
// killed, started again and cut off from the others.
//
// Invariant: only the public surface is used (files, flags, the admin socket,
// the CDS's API), so what holds in a cluster of this package holds for a
// user's. The demo, the end-to-end tests and the benchmarks share it.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

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
	ManyPods  bool              // nodes have addresses for thousands of pods
	Outside   []string          // hosts next door; those of the CDS and of etcd are added
	Workloads []policy.Workload // of the first manifest
	Ingress   []policy.IngressRule
	NodeFlags []string // further flags of every node daemon
	CDSFlags  []string // further flags of every replica of the CDS
	// Kubernetes is called with the lab before a daemon starts, and returns the
	// kubeconfig of an API server: the node daemons ask it where pods are. With
	// none they have static routes.
	Kubernetes func(*lab.Lab) (kubeconfig string, err error)
	Impostors  map[string]string // nodes that run another binary; New does not wait for them
	Log        *slog.Logger
	// SimDir is the folder of the simulated vendor and its machines; one of the
	// cluster's own if empty. Making a vendor takes seconds: it has RSA keys.
	SimDir string

	// Replicas of the CDS, 1 if zero. Several need an etcd to share.
	Replicas int
	// Etcd is how many members it has; with none, the CDS keeps a file.
	Etcd       int
	EtcdBinary string // the etcd executable
}

// Cluster is a running cluster.
type Cluster struct {
	Lab       *lab.Lab
	CDS       []*Replica
	Etcd      []*Member
	Nodes     []*Node
	Ingresses []*Ingress
	Operators policy.Operators

	opts        Options
	dir         string
	simDir      string
	measurement string
	kubeconfig  string
	desk        desk
}

// New builds the lab, signs a first manifest and starts etcd, the CDS and every
// node daemon. It returns when all nodes are enrolled. Close, or the end of
// ctx, removes everything.
func New(ctx context.Context, o Options) (*Cluster, error) {
	o.Replicas = max(o.Replicas, 1)
	if o.Replicas > 1 && o.Etcd == 0 {
		return nil, fmt.Errorf("building the cluster: %d replicas of the CDS need an etcd to share", o.Replicas)
	}
	specs := make([]lab.NodeSpec, len(o.Nodes))
	for i, name := range o.Nodes {
		specs[i] = lab.NodeSpec{Name: name, ManyPods: o.ManyPods}
	}
	if _, err := lab.Sweep(); err != nil {
		return nil, fmt.Errorf("removing what killed runs left: %w", err)
	}
	outside := slices.Concat(replicaNames(o.Replicas), memberNames(o.Etcd), o.Outside)
	l, err := lab.New(ctx, lab.Options{Name: o.Name, Nodes: specs, Outside: outside, Log: o.Log})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: l, opts: o, dir: l.Dir(), simDir: cmp.Or(o.SimDir, filepath.Join(l.Dir(), "sim"))}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.firstManifest(); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.startCDS(ctx); err != nil {
		return err
	}
	if c.opts.Kubernetes != nil {
		var err error
		if c.kubeconfig, err = c.opts.Kubernetes(c.Lab); err != nil {
			return fmt.Errorf("starting the API server: %w", err)
		}
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

// Logs returns the last lines of every process, by its name.
func (c *Cluster) Logs() map[string]string {
	logs := map[string]string{}
	for _, p := range c.processes() {
		logs[p.name] = string(p.tail(8000))
	}
	return logs
}

// Saying returns what the logs that contain text say from there on, by the name
// of the process.
func (c *Cluster) Saying(text string) map[string]string {
	logs := map[string]string{}
	for _, p := range c.processes() {
		if found := p.said(text); found != "" {
			logs[p.name] = found
		}
	}
	return logs
}

func (c *Cluster) processes() (all []*process) {
	for _, m := range c.Etcd {
		all = append(all, m.process)
	}
	for _, r := range c.CDS {
		all = append(all, r.process)
	}
	for _, i := range c.Ingresses {
		all = append(all, i.process)
	}
	for _, n := range c.Nodes {
		all = append(all, n.proc)
		if n.former != nil && n.former != n.proc {
			all = append(all, n.former)
		}
	}
	return all
}

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
