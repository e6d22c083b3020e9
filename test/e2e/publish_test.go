// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const hostPort = 30070

// publishing opens the echo server of server's pods on their nodes.
func publishing(from ...string) func(*cluster.Options) {
	return func(o *cluster.Options) {
		o.Workloads = workloads()
		o.Workloads[1].Publish = []policy.Publish{{Port: echoPort, HostPort: hostPort, From: from}}
	}
}

// knock connects to a port of a node from outside the mesh, and returns whom
// the application saw.
func knock(t *testing.T, h *lab.Host, to netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	t.Cleanup(func() { conn.Close() })
	seen, err := greeting(conn)
	return conn, seen, err
}

func greeting(conn net.Conn) (netip.AddrPort, error) {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return netip.AddrPort{}, err
	}
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := conn.Read(one); err != nil {
			return netip.AddrPort{}, err
		}
		if one[0] == '\n' {
			return netip.ParseAddrPort(string(line))
		}
		line = append(line, one[0])
	}
}

// waitPublished waits until the node's status says so of its published ports.
func waitPublished(t *testing.T, n *cluster.Node, what string, fits func([]agent.PublishedStatus) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if fits(s.Published) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s; published: %+v", what, s.Published)
		}
	}
}

func serves(pods int) func([]agent.PublishedStatus) bool {
	return func(all []agent.PublishedStatus) bool {
		return len(all) == 1 && all[0].Pods == pods && all[0].Error == ""
	}
}

func TestPublishedPortIsReachedFromOutside(t *testing.T) {
	c := newCluster(t, publishing("any"))
	node, outside := c.Nodes[0], c.Lab.Outside("outside")
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		server := openPod(t, node, "server", kind)
		serveEcho(t, server)
		waitPublished(t, node, "the port is not open", serves(1))
		for _, family := range []struct{ client, node netip.Addr }{
			{outside.Addr4, node.Lab.Addr4}, {outside.Addr6, node.Lab.Addr6},
		} {
			t.Run(fmt.Sprintf("%s pod, %s", kind, family.node), func(t *testing.T) {
				conn, seen, err := knock(t, outside, netip.AddrPortFrom(family.node, hostPort))
				if err != nil {
					t.Fatal(err)
				}
				if seen.Addr() != family.client {
					t.Errorf("the application sees %s, want the client's address %s", seen, family.client)
				}
				want := strings.Repeat("published ", 100_000)
				if got, err := echo(conn, want); err != nil || got != want {
					t.Errorf("%d bytes came back, want %d (%v)", len(got), len(want), err)
				}
			})
		}
		if err := node.RemovePod(server); err != nil {
			t.Fatal(err)
		}
		waitPublished(t, node, "the port of a pod that has gone is open", func(all []agent.PublishedStatus) bool { return len(all) == 0 })
		if _, _, err := knock(t, outside, netip.AddrPortFrom(node.Lab.Addr4, hostPort)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the port of a pod that has gone: %v", err)
		}
	}
	flows, err := node.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rule, n := fmt.Sprintf("publish/%d", hostPort), 0
	for _, r := range flows {
		if r.Verdict == flow.Closed && r.Rule == rule && r.Direction == flow.Ingress && r.SrcID == "" && r.DstWorkload == "server" {
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d records of closed connections, want 4: %+v", n, flows)
	}
}

func TestClientsThatTheEntryDoesNotListAreRefused(t *testing.T) {
	c := newCluster(t, publishing("192.0.2.0/24"))
	node, outside := c.Nodes[0], c.Lab.Outside("outside")
	client, server := openPod(t, c.Nodes[1], "client", lab.Routed), openPod(t, node, "server", lab.Routed)
	serveEcho(t, server)
	waitPublished(t, node, "the port is not open", serves(1))
	to := netip.AddrPortFrom(node.Lab.Addr4, hostPort)
	if _, _, err := knock(t, outside, to); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that is not listed: %v, want a reset", err)
	}
	if r := refusal(t, node, to); r.Reason != string(policy.CodePublishClient) {
		t.Errorf("%+v", r)
	}
	// A pod's way is the mesh, for pods of this node and of others.
	for _, pod := range []*cluster.Pod{client, server} {
		if _, _, err := connect(t, pod, to); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a pod: %v, want a reset", err)
		}
	}
	if err := c.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads[1].Publish[0].From = []string{"any"} }); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, _, err := knock(t, outside, to)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after the manifest lists everybody: %v", err)
		}
	}
}

func TestPortThatIsTakenIsReportedAndTriedAgain(t *testing.T) {
	c := newCluster(t, publishing("any"))
	node, outside := c.Nodes[0], c.Lab.Outside("outside")
	squatter, err := node.Lab.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", hostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	server := openPod(t, node, "server", lab.Routed)
	serveEcho(t, server)
	waitPublished(t, node, "the taken port is not reported", func(all []agent.PublishedStatus) bool {
		return len(all) == 1 && strings.Contains(all[0].Error, "address already in use")
	})
	if text := onNode(t, node, binary, "status", "--run-dir", node.RunDir()); !strings.Contains(text, "address already in use") {
		t.Errorf("c8s status does not say it:\n%s", text)
	}
	squatter.Close()
	waitPublished(t, node, "the port was not tried again", serves(1))
	if _, _, err := knock(t, outside, netip.AddrPortFrom(node.Lab.Addr4, hostPort)); err != nil {
		t.Error(err)
	}
}

// DNAT is what kube-proxy and the portmap plugin do for node ports and host
// ports. The entry publishes nothing.
func TestForwardedTrafficFromOutsideDropsInTheKernel(t *testing.T) {
	c := newCluster(t)
	node, outside := c.Nodes[0], c.Lab.Outside("outside")
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		server := openPod(t, node, "server", kind)
		serveEcho(t, server)
		onNode(t, node, "nft", "add table inet portmap")
		onNode(t, node, "nft", "add chain inet portmap prerouting { type nat hook prerouting priority dstnat; }")
		onNode(t, node, "nft", fmt.Sprintf("add rule inet portmap prerouting ip daddr %s tcp dport %d dnat ip to %s:%d", node.Lab.Addr4, hostPort, server.Addr4, echoPort))
		onNode(t, node, "nft", fmt.Sprintf("add rule inet portmap prerouting ip6 daddr %s tcp dport %d dnat ip6 to [%s]:%d", node.Lab.Addr6, hostPort, server.Addr6, echoPort))
		for _, addr := range []netip.Addr{node.Lab.Addr4, node.Lab.Addr6} {
			before := drops(t, node)["forwarded-to-pod"]
			conn, err := dialFrom(t, outside, netip.AddrPortFrom(addr, hostPort), 1500*time.Millisecond)
			if err == nil {
				conn.Close()
				t.Errorf("%s pod, %s: a forwarded connection reached the pod", kind, addr)
			}
			if after := drops(t, node)["forwarded-to-pod"]; after == before {
				t.Errorf("%s pod, %s: no forwarded-to-pod was counted: %v", kind, addr, drops(t, node))
			}
		}
		onNode(t, node, "nft", "delete table inet portmap")
		if err := node.RemovePod(server); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublishedPortSurvivesAnUpgradeWithoutAFailure(t *testing.T) {
	c := newCluster(t, publishing("any"), func(o *cluster.Options) { o.NodeFlags = []string{"--drain=5s", "--instance=first"} })
	node, outside := c.Nodes[0], c.Lab.Outside("outside")
	server := openPod(t, node, "server", lab.Routed)
	serveEcho(t, server)
	waitPublished(t, node, "the port is not open", serves(1))
	to := netip.AddrPortFrom(node.Lab.Addr4, hostPort)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	count := 0
	go func() {
		for ctx.Err() == nil {
			conn, _, err := knock(t, outside, to)
			if err == nil {
				err = roundTrip(conn)
				conn.Close()
			}
			if err != nil && ctx.Err() == nil {
				result <- fmt.Errorf("connection %d: %w", count, err)
				return
			}
			count++
		}
		result <- nil
	}()
	if err := node.Succeed("--instance=second"); err != nil {
		t.Fatal(err)
	}
	if err := node.WaitInstance(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	waitEnded(t, node.Former())
	waitPublished(t, node, "the new daemon does not have the port", serves(1))
	if _, _, err := knock(t, outside, to); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-result; err != nil || count == 0 {
		t.Errorf("after %d connections: %v", count, err)
	}
	t.Logf("%d connections, none failed", count)
}
