// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// Ports of the load servers in the server pod.
const (
	sinkPort = 7000 + iota
	oncePort
	respondPort
	echoPort
)

// site is one way to connect a client pod to a server pod on another node.
type site struct {
	name   string
	client *lab.Pod
	server *lab.Pod
	pids   []int // of the proxies, none when routed
	close  func() error
}

func (s *site) dial(port uint16) load.Dial {
	to := netip.AddrPortFrom(s.server.Addr4, port).String()
	return func(ctx context.Context) (net.Conn, error) { return s.client.Dial(ctx, "tcp", to) }
}

// serve starts the load servers in the server pod.
func (s *site) serve(ctx context.Context) error {
	for port, handle := range map[uint16]load.Handler{
		sinkPort: load.Sink, oncePort: load.Once, respondPort: load.Respond, echoPort: load.Echo,
	} {
		ln, err := s.server.Listen("tcp", netip.AddrPortFrom(s.server.Addr4, port).String())
		if err != nil {
			return err
		}
		go func() { _ = load.Serve(ctx, ln, handle) }()
	}
	return nil
}

// newRouted is plain routed TCP: a lab without C8s.
func newRouted(ctx context.Context) (*site, error) {
	l, err := lab.New(ctx, lab.Options{Name: "bench-routed", Nodes: []lab.NodeSpec{{Name: "node-a"}, {Name: "node-b"}}})
	if err != nil {
		return nil, err
	}
	return newSite(ctx, "routed TCP", l)
}

func newSite(ctx context.Context, name string, l *lab.Lab) (*site, error) {
	client, err := l.Node("node-a").AddPod(ctx, lab.PodSpec{Name: "client"})
	if err != nil {
		return nil, err
	}
	server, err := l.Node("node-b").AddPod(ctx, lab.PodSpec{Name: "server"})
	if err != nil {
		return nil, err
	}
	s := &site{name: name, client: client, server: server, close: l.Close}
	return s, s.serve(ctx)
}

// newPlain is the same proxies without TLS.
func newPlain(ctx context.Context) (*site, error) {
	l, err := lab.New(ctx, lab.Options{Name: "bench-plain", Nodes: []lab.NodeSpec{{Name: "node-a"}, {Name: "node-b"}}})
	if err != nil {
		return nil, err
	}
	s, err := newSite(ctx, "without TLS", l)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, pod := range []*lab.Pod{s.client, s.server} {
		pid, err := startPlain(ctx, self, l, pod)
		if err != nil {
			return nil, err
		}
		s.pids = append(s.pids, pid)
	}
	return s, nil
}

func startPlain(ctx context.Context, self string, l *lab.Lab, pod *lab.Pod) (int, error) {
	bpffs, err := pod.Node.BPFFS()
	if err != nil {
		return 0, err
	}
	n := plainNode{
		PinDir: filepath.Join(bpffs, "c8s"), Uplinks: []string{lab.Uplink}, Addr: pod.Node.Addr4,
		Routes: map[netip.Prefix]netip.Addr{},
		Pods:   []plainPod{{Netns: pod.Path(), HostLink: pod.HostLink, Addrs: []netip.Addr{pod.Addr4, pod.Addr6}}},
	}
	for _, node := range l.Nodes() {
		n.Routes[node.PodCIDR4], n.Routes[node.PodCIDR6] = node.Addr4, node.Addr4
	}
	config, err := json.Marshal(n)
	if err != nil {
		return 0, err
	}
	cmd := pod.Node.Command(ctx, self, "plain-node")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(config), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, fmt.Errorf("starting the proxy without TLS on %s: %w", pod.Node.Name, err)
	}
	return cmd.Process.Pid, nil
}

// newMesh is C8s itself: real daemons, certificates and policy.
func newMesh(ctx context.Context, binary string) (*site, error) {
	client, server := workload("client"), workload("server")
	ports := []uint16{sinkPort, oncePort, respondPort, echoPort}
	client.Peers.To = []policy.PeerRule{{Workload: "server", Ports: ports, Protocol: policy.ProtocolTCP}}
	server.Peers.From = []policy.PeerRule{{Workload: "client", Ports: ports, Protocol: policy.ProtocolTCP}}
	c, err := cluster.New(ctx, cluster.Options{
		Binary: binary, Name: "bench-mesh", Nodes: []string{"node-a", "node-b"},
		Workloads: []policy.Workload{client, server}, NodeFlags: []string{"--log-level", "warn"},
	})
	if err != nil {
		return nil, err
	}
	s := &site{name: "raTLS", close: c.Close}
	for i, name := range []string{"client", "server"} {
		p, err := c.Nodes[i].AddPod(ctx, name, lab.PodSpec{Name: name, Images: []string{string(image(name))}})
		if err != nil {
			return nil, err
		}
		if err := p.WaitState(ctx, agent.StateOpen, ""); err != nil {
			return nil, err
		}
		if i == 0 {
			s.client = p.Pod
		} else {
			s.server = p.Pod
		}
		s.pids = append(s.pids, c.Nodes[i].PID())
	}
	return s, s.serve(ctx)
}

func image(name string) policy.Digest { return policy.DigestOf([]byte("bench image " + name)) }

func workload(name string) policy.Workload {
	return policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: image(name)}}}
}
