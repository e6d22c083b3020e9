// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/c8s-dev/c8s/test/stack/image"
)

//go:embed node.sh
var nodeScript []byte

//go:embed enter.sh
var enterScript []byte

// NodeConfig says what a node is. The zero value is a plain node with
// containerd as released and the bridge plugin, on a network of its own.
type NodeConfig struct {
	// Name is the host name, "node" if empty.
	Name string
	// Fabric is the network it is on, one of its own if nil.
	Fabric *Fabric
	// Containerd is ContainerdStock (if empty) or ContainerdNRI5.
	Containerd string
	// NoContainerd makes a machine without: for a control plane, or a client.
	NoContainerd bool
	// ExtraConfig are drop-ins of containerd, by their name in
	// /etc/containerd/conf.d, which must end in .toml.
	ExtraConfig map[string]string
	// RuntimeBinary stands in for runc: an OCI runtime.
	RuntimeBinary string
	// CNI is CNIBridge (if empty), CNIPTP or CNINone.
	CNI string
	// IPv4Only leaves pods without IPv6.
	IPv4Only bool
}

// Node is a machine as far as containerd and Kubernetes can tell.
type Node struct {
	cfg       NodeConfig
	scratch   *scratch
	cgroups   *cgroups
	fabric    *Fabric
	ownFabric bool
	member    member

	holder *exec.Cmd
	owner  io.Closer // the holder's stdin: closes with this process

	mu        sync.Mutex
	cri       *CRI
	processes map[string]*Process
	closed    bool
}

// Up makes a node and starts containerd on it. The caller closes it.
func Up(ctx context.Context, cfg NodeConfig) (*Node, error) {
	if cfg.Name == "" {
		cfg.Name = "node"
	}
	if cfg.Containerd == "" {
		cfg.Containerd = ContainerdStock
	}
	if cfg.CNI == "" {
		cfg.CNI = CNIBridge
	}
	if err := Sweep(ctx); err != nil {
		return nil, fmt.Errorf("cleaning up after earlier nodes: %w", err)
	}
	n := &Node{cfg: cfg, processes: map[string]*Process{}}
	if err := n.up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("bringing up node %s: %w", cfg.Name, err), n.Close())
	}
	return n, nil
}

func (n *Node) up(ctx context.Context) error {
	var err error
	if n.scratch, err = newScratch(n.cfg.Name); err != nil {
		return err
	}
	if n.cgroups, err = newCgroups(n.scratch.id); err != nil {
		return err
	}
	if err := n.hold(); err != nil {
		return fmt.Errorf("making its namespaces: %w", err)
	}
	n.fabric = n.cfg.Fabric
	if n.fabric == nil {
		n.ownFabric = true
		if n.fabric, err = NewFabric(); err != nil {
			return err
		}
	}
	if n.member, err = n.fabric.join(n.cfg.Name, n.holder.Process.Pid); err != nil {
		return fmt.Errorf("connecting it: %w", err)
	}
	if n.cfg.NoContainerd {
		return nil
	}
	if err := n.install(ctx); err != nil {
		return err
	}
	if err := n.StartContainerd(ctx); err != nil {
		return err
	}
	// The first pod needs the image of its sandbox.
	pause, err := image.Pause(ctx)
	if err != nil {
		return err
	}
	return n.Import(ctx, pause)
}

// hold starts the process that is in the node's namespaces for as long as
// the node is.
func (n *Node) hold() error {
	dir := n.scratch.dir
	var list strings.Builder
	for _, h := range n.cgroups.all {
		kind := "cgroup"
		if h.unified {
			kind = "cgroup2"
		}
		fmt.Fprintf(&list, "%s %s %s\n", h.mount, kind, h.options)
	}
	err := errors.Join(
		os.Mkdir(n.logDir(), 0o755),
		os.WriteFile(filepath.Join(dir, "cgroups"), []byte(list.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "node.sh"), nodeScript, 0o755),
		os.WriteFile(filepath.Join(dir, "enter"), enterScript, 0o755),
	)
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/bash", filepath.Join(dir, "node.sh"))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PATH="+searchPath, "DIR="+dir, "ID="+n.scratch.id, "NAME="+n.cfg.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if n.owner, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.holder = cmd
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("node.sh gave up:\n%s", n.Logs())
	}
	return os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// Name is the host name.
func (n *Node) Name() string { return n.cfg.Name }

// Addr is the node's own IPv4 address, Addr6 the other.
func (n *Node) Addr() netip.Addr  { return n.member.addr4 }
func (n *Node) Addr6() netip.Addr { return n.member.addr6 }

// PodCIDRs are the networks of the node's pods.
func (n *Node) PodCIDRs() []netip.Prefix {
	if n.cfg.IPv4Only {
		return []netip.Prefix{n.member.pods4}
	}
	return []netip.Prefix{n.member.pods4, n.member.pods6}
}

// Fabric is the network the node is on.
func (n *Node) Fabric() *Fabric { return n.fabric }

// Pid is a process that is in all of the node's namespaces and does nothing:
// /proc/PID/ns/net is the node's network.
func (n *Node) Pid() int { return n.holder.Process.Pid }

// Path is where this process finds a file of the node.
func (n *Node) Path(file string) string {
	return filepath.Join("/proc", strconv.Itoa(n.Pid()), "root", file)
}

// Cgroup is where this process finds a cgroup (version 2) of the node, "/"
// being the one of all its processes.
func (n *Node) Cgroup(name string) string { return filepath.Join(n.cgroups.unified(), name) }

// WriteFile writes a file of the node, and makes the folders above it.
func (n *Node) WriteFile(file string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(n.Path(filepath.Dir(file)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(n.Path(file), data, mode)
}

func (n *Node) logDir() string { return filepath.Join(n.scratch.dir, "log") }

// Close ends everything on the node and removes all traces of it. It may be
// called again.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	ctx := context.Background()
	var errs []error
	if n.cri != nil {
		errs = append(errs, n.cri.close())
	}
	if n.fabric != nil {
		n.fabric.leave(n.member)
		if n.ownFabric {
			errs = append(errs, n.fabric.Close())
		}
	}
	if n.cgroups != nil {
		errs = append(errs, n.cgroups.kill(ctx))
	}
	if n.holder != nil {
		_ = n.owner.Close()
		_ = n.holder.Wait() // killed
	}
	if n.cgroups != nil {
		errs = append(errs, n.cgroups.remove(ctx))
	}
	if n.scratch != nil {
		errs = append(errs, n.scratch.remove())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing node %s: %w", n.cfg.Name, err)
	}
	return nil
}
