// SPDX-License-Identifier: Apache-2.0

// Package lab builds Kubernetes-like nodes and pods out of network namespaces.
//
// Invariant: everything a lab makes lies inside its own namespaces and its own
// folder, so a lab cannot disturb the machine or another lab, and Close (or,
// after a crash, Sweep) removes all of it: links, namespaces, mounts,
// processes and files.
//
// The plain lab forwards packets the way an ordinary cluster does. What C8s
// adds on top (steering, locks, tunnels) is therefore measured and tested
// against a baseline in which nothing is refused.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
)

// Limits of the address plan (see plan.go).
const (
	maxNodes   = 100
	maxOutside = 50
)

// Options says what New builds.
type Options struct {
	// Log receives progress at debug level and clean-up problems at warn
	// level. Nil discards both.
	Log *slog.Logger
	// Name begins the name of the lab's folder: a DNS label of at most 32
	// characters, "lab" when empty. It need not be unique.
	Name string
	// Nodes are the cluster's machines, 1 to 100.
	Nodes []NodeSpec
	// Outside names hosts on the underlay that are no cluster members, up to
	// 50. They have routes to the pods, as a router next door would.
	Outside []string
}

// NodeSpec describes one node.
type NodeSpec struct {
	// Name is a DNS label, unique in the lab.
	Name string
	// Sysctls are written in the node's namespace before it has any link,
	// keyed like "net.ipv4.conf.all.rp_filter".
	Sysctls map[string]string
	// ManyPods gives the node a range for thousands of pods, not for 240.
	ManyPods bool
}

// Lab is a set of nodes, pods and outside hosts on one underlay.
type Lab struct {
	// Wire is the namespace of the underlay switch. The bridge WireBridge in
	// it sees every frame between the nodes exactly once.
	Wire *NS

	log     *slog.Logger
	dir     *stateDir
	nodes   []*Node
	outside []*Host
	starter *starter

	mu         sync.Mutex
	closed     bool
	spaces     []*NS
	stopWatch  func() bool
	closeOnce  sync.Once
	closeError error
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// New builds a lab. It is closed by Close or by the end of ctx, whichever
// comes first; on error nothing is left behind. It needs root (CAP_SYS_ADMIN
// and CAP_NET_ADMIN).
func New(ctx context.Context, o Options) (*Lab, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Name == "" {
		o.Name = "lab"
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("building lab %q: %w", o.Name, err)
	}
	dir, err := newStateDir(o.Name)
	if err != nil {
		return nil, fmt.Errorf("building lab %q: %w", o.Name, err)
	}
	l := &Lab{log: o.Log.With("lab", dir.id), dir: dir, starter: newStarter()}
	if err := l.build(o); err != nil {
		return nil, errors.Join(fmt.Errorf("building lab %q: %w", o.Name, err), l.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("building lab %q: %w", o.Name, err), l.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		if err := l.Close(); err != nil {
			l.log.Warn("closing the lab after its context ended", "error", err)
		}
	})
	l.mu.Lock()
	l.stopWatch = stop
	l.mu.Unlock()
	l.log.Debug("lab is up", "nodes", len(l.nodes), "outside", len(l.outside))
	return l, nil
}

func (o Options) check() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run as root or with sudo")
	}
	if n := len(o.Nodes); n < 1 || n > maxNodes {
		return fmt.Errorf("checking the options: %d nodes asked for, 1 to %d possible", n, maxNodes)
	}
	if n := len(o.Outside); n > maxOutside {
		return fmt.Errorf("checking the options: %d outside hosts asked for, %d possible", n, maxOutside)
	}
	names := []string{o.Name}
	seen := map[string]bool{}
	for _, n := range o.Nodes {
		names = append(names, n.Name)
	}
	for i, n := range append(names, o.Outside...) {
		if !label.MatchString(n) {
			return fmt.Errorf("checking the options: name %q is not a DNS label of at most 32 characters", n)
		}
		if i > 0 && seen[n] { // the lab itself may be called like a node
			return fmt.Errorf("checking the options: name %q is used twice", n)
		}
		seen[n] = i > 0
	}
	return nil
}

func (l *Lab) build(o Options) error {
	if err := l.buildWire(); err != nil {
		return err
	}
	for i, spec := range o.Nodes {
		if err := l.addNode(i+1, spec); err != nil {
			return err
		}
	}
	for i, name := range o.Outside {
		if err := l.addOutside(i+1, name); err != nil {
			return err
		}
	}
	return l.routeBetween()
}

// Name is the lab's unique name: Options.Name, the process id and a random suffix.
func (l *Lab) Name() string { return l.dir.id }

// Dir is the lab's private folder, removed with the lab. Programs under test
// may keep sockets and state in it.
func (l *Lab) Dir() string { return l.dir.path }

// Nodes returns the nodes in the order of Options.Nodes.
func (l *Lab) Nodes() []*Node { return append([]*Node(nil), l.nodes...) }

// Node returns the node of that name, nil when there is none.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Outside returns the outside host of that name, nil when there is none.
func (l *Lab) Outside(name string) *Host {
	for _, h := range l.outside {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Close ends every process in the lab and removes everything the lab made.
// It may be called any number of times, from any goroutine; every call waits
// for the end and returns the same result.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() { l.closeError = l.close() })
	return l.closeError
}

func (l *Lab) close() error {
	l.mu.Lock()
	l.closed = true
	spaces, stop := l.spaces, l.stopWatch
	l.mu.Unlock()
	if stop != nil {
		stop()
	}
	var errs []error
	// No process may start any more, those that run are killed with their
	// groups; then whatever slipped out of its group is found by namespace.
	l.starter.close()
	inodes := map[uint64]bool{}
	for _, ns := range spaces {
		inodes[ns.inode] = true
	}
	errs = append(errs, killInNamespaces(inodes))
	for i := len(spaces) - 1; i >= 0; i-- {
		errs = append(errs, spaces[i].close())
	}
	errs = append(errs, l.dir.remove())
	err := errors.Join(errs...)
	if err != nil {
		return fmt.Errorf("closing lab %s: %w; lab.Sweep removes what is left once this process has ended", l.dir.id, err)
	}
	l.log.Debug("lab is gone")
	return nil
}

func (l *Lab) forget(ns *NS) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.spaces {
		if s == ns {
			l.spaces = append(l.spaces[:i:i], l.spaces[i+1:]...)
			return
		}
	}
}

// ErrClosed is returned by everything in a lab or namespace that is gone.
var ErrClosed = errors.New("the lab is closed")

// sysctlPath turns net.ipv4.ip_forward into its file. Interface names with
// dots are not supported; the lab makes none.
func sysctlPath(key string) string {
	return "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
}
