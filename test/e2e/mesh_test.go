// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

func TestPodsTalkOverTheTunnelOnly(t *testing.T) {
	c := newCluster(t)
	const canary = "CANARY-e2e-must-not-be-on-the-wire"
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Canary: []byte(canary), Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Nodes[0], c.Nodes[1]
	for _, kinds := range [][2]lab.Kind{{lab.Routed, lab.Bridged}, {lab.Bridged, lab.Routed}} {
		client := openPod(t, a, "client", kinds[0])
		for _, node := range []*cluster.Node{a, b} {
			server := openPod(t, node, "server", kinds[1])
			serveEcho(t, server)
			for _, family := range []struct{ src, dst netip.Addr }{{client.Addr4, server.Addr4}, {client.Addr6, server.Addr6}} {
				name := fmt.Sprintf("%s on node-a to %s on %s from %s", kinds[0], kinds[1], node.Lab.Name, family.src)
				t.Run(name, func(t *testing.T) {
					conn, seen, err := connect(t, client, netip.AddrPortFrom(family.dst, echoPort))
					if err != nil {
						t.Fatal(err)
					}
					if seen.Addr() != family.src {
						t.Errorf("the server saw %s, want the pod's own address %s", seen, family.src)
					}
					if got := conn.RemoteAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort(); got.Addr() != family.dst {
						t.Errorf("the client sees %s, want %s", got, family.dst)
					}
					want := strings.Repeat(canary, 20_000)
					if got, err := echo(conn, want); err != nil || got != want {
						t.Errorf("%d bytes came back, want %d (%v)", len(got), len(want), err)
					}
				})
			}
			if err := node.RemovePod(server); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.RemovePod(client); err != nil {
			t.Fatal(err)
		}
	}
	onlyTunnels(t, wire)
}

// onlyTunnels ends a capture between nodes that must have seen nothing of a pod
// outside of tunnels.
func onlyTunnels(t *testing.T, wire *capture.Capture) {
	t.Helper()
	report := wire.Stop()
	if err := report.Complete(); err != nil || report.Tunnel == 0 {
		t.Errorf("capture of %d tunnel packets proves nothing: %v", report.Tunnel, err)
	}
	if report.CanaryHits != 0 || len(report.Plain) != 0 {
		t.Errorf("on the wire in clear: %d canaries, packets %v", report.CanaryHits, report.Plain)
	}
}

func TestRefusalsReachTheApplicationAtOnce(t *testing.T) {
	c := newCluster(t)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	stranger := openPod(t, c.Nodes[1], "stranger", lab.Bridged)
	serveEcho(t, server)
	for _, tt := range []struct {
		name   string
		from   *cluster.Pod
		to     netip.AddrPort
		reason string
	}{
		{"port not listed", client, netip.AddrPortFrom(server.Addr4, otherPort), "port-not-allowed"},
		{"nobody listens", client, netip.AddrPortFrom(server.Addr4, closedPort), "connection-refused"},
		{"peer not listed", stranger, netip.AddrPortFrom(server.Addr4, echoPort), "peer-not-allowed-egress"},
		{"no such pod", client, netip.AddrPortFrom(c.Nodes[1].Lab.PodCIDR4.Addr().Next().Next().Next().Next().Next().Next().Next().Next(), echoPort), ""},
		{"outside the cluster", client, netip.AddrPortFrom(c.Lab.Outside("outside").Addr4, echoPort), "no-route"},
		{"the node itself", client, netip.AddrPortFrom(c.Nodes[0].Lab.Addr4, cluster.MetricsPort), "host-address"},
		{"IPv6, port not listed", client, netip.AddrPortFrom(server.Addr6, otherPort), "port-not-allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := connect(t, tt.from, tt.to)
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("the application saw %v, want a reset", err)
			}
			record := refusal(t, tt.from.On, tt.to)
			if tt.reason != "" && record.Reason != tt.reason {
				t.Errorf("reason %q, want %q", record.Reason, tt.reason)
			}
		})
	}
}

// refusal waits for the record of a refused connection to dst: a refusal by
// the far end is recorded once the application has been reset.
func refusal(t *testing.T, n *cluster.Node, dst netip.AddrPort) flow.Record {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		flows, err := n.Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(flows, func(r flow.Record) bool { return r.Verdict == flow.Refused && r.Dst == dst })
		if i >= 0 {
			return flows[i]
		}
		if time.Now().After(deadline) {
			t.Fatal("no flow record of the refusal")
		}
	}
}

func TestUnlistedPodStaysLocked(t *testing.T) {
	c := newCluster(t)
	server := openPod(t, c.Nodes[1], "server", lab.Routed)
	serveEcho(t, server)
	p, err := c.Nodes[0].AddPod(t.Context(), "", lab.PodSpec{Name: "unlisted", Images: []string{image("nobody signed this")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitState(t.Context(), agent.StateLocked, "image-unlisted"); err != nil {
		t.Fatal(err)
	}
	mustGetNoAnswer(t, p, netip.AddrPortFrom(server.Addr4, echoPort))
	s, err := c.Nodes[0].Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Drops["pod-locked"] == 0 {
		t.Errorf("the kernel counted no pod-locked: %v", s.Drops)
	}
}

// mustGetNoAnswer checks that a pod whose packets the kernel drops gets no
// connection, in the time in which TCP tries twice.
func mustGetNoAnswer(t *testing.T, from *cluster.Pod, to netip.AddrPort) {
	t.Helper()
	conn, err := from.Dial(timeout(t, 2*time.Second), "tcp", to.String())
	if err == nil {
		conn.Close()
		t.Errorf("%s reached %s", from.Name, to)
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s to %s: %v, want no answer", from.Name, to, err)
	}
}

func TestManifestChangeClosesWhatItNoLongerAllows(t *testing.T) {
	c := newCluster(t)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Bridged)
	serveEcho(t, server)
	conn, _, err := connect(t, client, netip.AddrPortFrom(server.Addr4, echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := c.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads[1].Peers.From = nil }); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 || errors.Is(err, io.EOF) {
		t.Errorf("a connection that the new manifest forbids is not reset: read %d, %v", n, err)
	}
	if conn, _, err := connect(t, client, netip.AddrPortFrom(server.Addr4, echoPort)); err == nil {
		conn.Close()
		t.Error("a new connection was made against the new manifest")
	}
	if err := c.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads = []policy.Workload{workload("stranger")} }); err != nil {
		t.Fatal(err)
	}
	if err := client.WaitState(t.Context(), agent.StateLocked, ""); err != nil {
		t.Errorf("a pod whose entry is gone: %v", err)
	}
}

func TestKilledDaemonLeavesPodsLocked(t *testing.T) {
	c := newCluster(t)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	serveEcho(t, server)
	outside := c.Lab.Outside("outside")
	ln, err := outside.Listen("tcp", netip.AddrPortFrom(outside.Addr4, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(server.Addr4, echoPort), ln.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort()} {
		mustGetNoAnswer(t, client, to)
	}
	if report := wire.Stop(); len(report.Plain) != 0 {
		t.Errorf("with the daemon dead the wire saw %v", report.Plain)
	}
	// A pod born while nobody watches must be locked as soon as the daemon is back.
	if err := c.Nodes[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].WaitEnrolled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	conn, _, err := connect(t, client, netip.AddrPortFrom(server.Addr4, echoPort))
	if err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	conn.Close()
}
