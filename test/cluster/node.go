// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/lab"
)

// Node is a lab node with its daemon.
type Node struct {
	Lab     *lab.Node
	BPFFS   string // where the daemon's pins are
	cluster *Cluster
	dir     string
	proc    *process
	former  *process // the daemon that proc succeeds
	starts  int      // successors so far
	admin   *agent.Client
}

// Pod is a lab pod that the node's daemon was told about.
type Pod struct {
	*lab.Pod
	On   *Node
	file string
}

func (c *Cluster) newNode(n *lab.Node) (*Node, error) {
	node := &Node{Lab: n, cluster: c, dir: c.path(n.Name)}
	node.admin = agent.NewClient(node.dir)
	if err := os.MkdirAll(node.podsDir(), 0o700); err != nil {
		return nil, err
	}
	var err error
	if node.BPFFS, err = n.BPFFS(); err != nil {
		return nil, err
	}
	routes := map[netip.Prefix]netip.Addr{}
	for _, other := range c.Lab.Nodes() {
		routes[other.PodCIDR4], routes[other.PodCIDR6] = other.Addr4, other.Addr4
	}
	raw, err := json.Marshal(routes)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(node.dir, "routes.json"), raw, 0o600); err != nil {
		return nil, err
	}
	node.proc = node.daemon(n.Name)
	return node, nil
}

// daemon is a process of the node's daemon, not yet started.
func (node *Node) daemon(name string, flags ...string) *process {
	n, c := node.Lab, node.cluster
	return newProcess(name, c.path(name+".log"), func() *lab.Cmd {
		args := []string{
			"node", "--node-name", n.Name, "--node-address", n.Addr4.String(),
			"--uplink", lab.Uplink, "--bpffs", node.BPFFS, "--cds", strings.Join(c.cdsAddrs(), ","),
			"--operators", c.path("operators.json"), "--manifest", c.path("manifest.dsse.json"),
			"--pods-dir", node.podsDir(),
			"--state-dir", filepath.Join(node.dir, "state"), "--run-dir", node.dir,
			"--drain", "1s", "--tee", "sim", "--sim-dir", c.simDir, "--metrics-address", fmt.Sprintf("127.0.0.1:%d", MetricsPort),
		}
		if c.kubeconfig == "" {
			args = append(args, "--no-kubernetes", "--routes", filepath.Join(node.dir, "routes.json"))
		} else {
			args = append(args, "--kubeconfig", c.kubeconfig)
		}
		binary := c.opts.Binary
		if other, ok := c.opts.Impostors[n.Name]; ok {
			binary = other
		}
		return n.Command(context.Background(), binary, slices.Concat(args, c.opts.NodeFlags, flags)...)
	})
}

// Succeed starts a second daemon on the node, which takes over from the first.
// From here on the node's methods speak of the new one; Former of the old.
func (n *Node) Succeed(flags ...string) error {
	n.starts++
	next := n.daemon(fmt.Sprintf("%s-%d", n.Lab.Name, n.starts+1), flags...)
	if err := next.start(); err != nil {
		return err
	}
	n.former, n.proc = n.proc, next
	return nil
}

// Former is the daemon that Succeed was to replace.
func (n *Node) Former() *Former { return &Former{n.former} }

// Former is a daemon that has, or should have, a successor.
type Former struct{ proc *process }

// Kill ends it with SIGKILL.
func (f *Former) Kill() error { return f.proc.kill() }

// Stop ends it with SIGTERM.
func (f *Former) Stop() error { return f.proc.end(syscall.SIGTERM) }

// Running reports whether its process lives.
func (f *Former) Running() bool { return f.proc.running() }

// ExitCode is how it ended; -1 after a signal or while it runs.
func (f *Former) ExitCode() int { return f.proc.exitCode() }

// Log returns what it has logged, if that is not very long.
func (f *Former) Log() string { return string(f.proc.tail(1 << 20)) }

// Take undoes the last Succeed in the books: the successor has ended, and the
// daemon before it still owns the node.
func (n *Node) Take(f *Former) { n.proc = f.proc }

// WaitInstance waits until the daemon of that name owns the node.
func (n *Node) WaitInstance(ctx context.Context, instance string) error {
	return until(ctx, instance+" to own "+n.Lab.Name, func() error {
		s, err := n.Status(ctx)
		if err == nil && s.Node.Instance != instance {
			err = fmt.Errorf("%q does", s.Node.Instance)
		}
		return err
	})
}

func (n *Node) podsDir() string { return filepath.Join(n.dir, "pods") }

// Start starts the daemon.
func (n *Node) Start(context.Context) error { return n.proc.start() }

// Kill ends the daemon with SIGKILL: no clean-up of its own runs.
func (n *Node) Kill() error { return n.proc.kill() }

// Stop ends the daemon with SIGTERM.
func (n *Node) Stop() error { return n.proc.end(syscall.SIGTERM) }

// CutFrom and Heal are those of Replica.
func (n *Node) CutFrom(ctx context.Context, hosts ...*lab.Host) error {
	return cut(ctx, &n.Lab.Host, hosts)
}

// Heal undoes CutFrom.
func (n *Node) Heal(ctx context.Context) error { return heal(ctx, &n.Lab.Host) }

// RunDir is the folder of the daemon's admin socket.
func (n *Node) RunDir() string { return n.dir }

// ExitCode is how the daemon last ended; -1 after a signal or while it runs.
func (n *Node) ExitCode() int { return n.proc.exitCode() }

// Running reports whether the daemon's process lives.
func (n *Node) Running() bool { return n.proc.running() }

// PID is the daemon's process id.
func (n *Node) PID() int { return n.proc.pid() }

// Log returns the last lines of the daemon's log.
func (n *Node) Log() string { return string(n.proc.tail(8000)) }

// Status asks the daemon.
func (n *Node) Status(ctx context.Context) (*agent.Status, error) {
	if err := n.proc.died(); err != nil {
		return nil, err
	}
	return n.admin.Status(ctx)
}

// Flows returns the daemon's last records, oldest first.
func (n *Node) Flows(ctx context.Context) ([]flow.Record, error) {
	var all []flow.Record
	err := n.admin.Flows(ctx, agent.FlowQuery{Last: 1000}, func(r flow.Record) error {
		all = append(all, r)
		return nil
	})
	return all, err
}

// WaitEnrolled waits until the node has its own certificate.
func (n *Node) WaitEnrolled(ctx context.Context) error {
	return until(ctx, n.Lab.Name+" to be enrolled", func() error {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if s.Node.ID == "" {
			return fmt.Errorf("not yet: %s", s.Node.Error)
		}
		return nil
	})
}

// AddPod makes a pod in the lab and describes it to the daemon, asking for
// the workload entry of that name.
func (n *Node) AddPod(ctx context.Context, entry string, spec lab.PodSpec) (*Pod, error) {
	p, err := n.Lab.AddPod(ctx, spec)
	if err != nil {
		return nil, err
	}
	pod := &Pod{Pod: p, On: n, file: filepath.Join(n.podsDir(), p.UID+".json")}
	info := agent.PodInfo{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Netns: p.Path(), Interface: p.Interface,
		Addrs: []netip.Addr{p.Addr4, p.Addr6}, Entry: entry,
	}
	for _, image := range p.Images {
		info.Images = append(info.Images, policy.Digest(image))
	}
	raw, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	tmp := pod.file + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return nil, err
	}
	return pod, os.Rename(tmp, pod.file)
}

// HidePod takes the pod out of the daemon's sight only.
func (n *Node) HidePod(p *Pod) error { return os.Remove(p.file) }

// RemovePod takes the pod out of the daemon's sight and out of the lab.
func (n *Node) RemovePod(p *Pod) error {
	if err := n.HidePod(p); err != nil {
		return err
	}
	return n.Lab.RemovePod(p.Pod)
}

// Status returns what the daemon says about the pod.
func (p *Pod) Status(ctx context.Context) (agent.PodStatus, error) {
	s, err := p.On.Status(ctx)
	if err != nil {
		return agent.PodStatus{}, err
	}
	for _, ps := range s.Pods {
		if ps.UID == p.UID {
			return ps, nil
		}
	}
	return agent.PodStatus{}, fmt.Errorf("%s does not know pod %s", p.On.Lab.Name, p.Name)
}

// WaitState waits until the daemon reports state, and a reason when reason is
// not empty.
func (p *Pod) WaitState(ctx context.Context, state agent.State, reason string) error {
	return until(ctx, fmt.Sprintf("pod %s to be %s %s", p.Name, state, reason), func() error {
		s, err := p.Status(ctx)
		if err != nil {
			return err
		}
		if s.State != state || reason != "" && s.Reason != reason {
			return fmt.Errorf("it is %s (%s %s)", s.State, s.Reason, s.Detail)
		}
		return nil
	})
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
