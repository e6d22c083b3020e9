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

	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/lab"
)

// Ports of the load servers in the server pod.
const (
	sinkPort = 7000 + iota
	oncePort
	respondPort
	echoPort
	datagramPort // of UDP
)

// streamPorts are those of TCP.
func streamPorts() []uint16 { return []uint16{sinkPort, oncePort, respondPort, echoPort} }

// site is one way to connect a client pod to a server: a pod, on another node
// where nothing else is said, or a host outside.
type site struct {
	name   string
	client *lab.Pod
	server *lab.NS
	addr   netip.Addr // of the server
	pids   []int      // of the proxies, none when routed
	web    *front     // of part ingress, which has nothing else here but names
	close  func() error
}

func (s *site) dial(port uint16) load.Dial {
	return dialFrom(s.client, netip.AddrPortFrom(s.addr, port))
}

func dialFrom(pod *lab.Pod, to netip.AddrPort) load.Dial {
	return func(ctx context.Context) (net.Conn, error) { return pod.Dial(ctx, "tcp", to.String()) }
}

// dialUDP is dial for datagrams.
func (s *site) dialUDP(ctx context.Context) (net.Conn, error) {
	return s.client.Dial(ctx, "udp", netip.AddrPortFrom(s.addr, datagramPort).String())
}

// serve starts the load servers at the server.
func (s *site) serve(ctx context.Context) error {
	for port, handle := range map[uint16]load.Handler{
		sinkPort: load.Sink, oncePort: load.Once, respondPort: load.Respond, echoPort: load.Echo,
	} {
		if err := listen(ctx, s.server, netip.AddrPortFrom(s.addr, port), handle); err != nil {
			return err
		}
	}
	pc, err := s.server.ListenPacket("udp", netip.AddrPortFrom(s.addr, datagramPort).String())
	if err != nil {
		return err
	}
	go func() { _ = load.ServeDatagrams(ctx, pc.(*net.UDPConn)) }()
	return nil
}

func listen(ctx context.Context, ns *lab.NS, at netip.AddrPort, handle load.Handler) error {
	ln, err := ns.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	go func() { _ = load.Serve(ctx, ln, handle) }()
	return nil
}

// newRouted is plain routing: a lab without C8s, with the client on the first
// node and the server on the last.
func newRouted(ctx context.Context, nodes ...string) (*site, error) {
	l, err := newLab(ctx, nodes...)
	if err != nil {
		return nil, err
	}
	return newSite(ctx, "routed", l)
}

func newLab(ctx context.Context, nodes ...string) (*lab.Lab, error) {
	var specs []lab.NodeSpec
	for _, name := range nodes {
		specs = append(specs, lab.NodeSpec{Name: name})
	}
	return lab.New(ctx, lab.Options{Name: "bench-routed", Nodes: specs})
}

func newSite(ctx context.Context, name string, l *lab.Lab) (*site, error) {
	nodes := l.Nodes()
	client, err := nodes[0].AddPod(ctx, lab.PodSpec{Name: "client"})
	if err != nil {
		return nil, err
	}
	server, err := nodes[len(nodes)-1].AddPod(ctx, lab.PodSpec{Name: "server"})
	if err != nil {
		return nil, err
	}
	s := &site{name: name, client: client, server: server.NS, addr: server.Addr4, close: l.Close}
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
	for _, node := range l.Nodes() {
		pid, err := startPlain(ctx, self, l, node.Pods()[0])
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
