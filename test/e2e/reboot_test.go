// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// watchWire captures on the wire and fails the test for any byte of a pod
// outside a tunnel.
func watchWire(t *testing.T, c *cluster.Cluster) (judge func()) {
	t.Helper()
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		report := wire.Stop()
		if err := report.Complete(); err != nil || report.Tunnel == 0 {
			t.Errorf("the capture proves nothing: %v, %d tunnel packets", err, report.Tunnel)
		}
		if report.PlainPackets+report.UnknownPackets > 0 {
			t.Errorf("in the clear: %v %v", report.Plain, report.Unknown)
		}
	}
}

// talks fails the test unless the client reaches the server.
func talks(t *testing.T, client, server *cluster.Pod) {
	t.Helper()
	for _, addr := range []netip.Addr{server.Addr4, server.Addr6} {
		conn, _, err := connect(t, client, netip.AddrPortFrom(addr, echoPort))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := echo(conn, "hello"); err != nil || got != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// mustNotReach is for pods without a daemon: nobody resets their connections.
func mustNotReach(t *testing.T, from *cluster.Pod, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.String())
	if err == nil {
		conn.Close()
		t.Errorf("%s reached %s", from.Name, to)
	}
}

// TestNodeThatWasRebootedOpensWhatIsThereAndNothingElse has descriptions of
// pods that are gone, of one that came back elsewhere, and a pod whose link is
// there before the daemon.
func TestNodeThatWasRebootedOpensWhatIsThereAndNothingElse(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client := openPod(t, a, "client", lab.Routed)
	server, stranger := openPod(t, b, "server", lab.Bridged), openPod(t, b, "stranger", lab.Routed)
	serveEcho(t, server)
	judge := watchWire(t, c)
	talks(t, client, server)

	if err := b.PowerOff(t.Context(), server, stranger); err != nil {
		t.Fatal(err)
	}
	// The pod that comes first has the address that a description gives to
	// the server of before, and no right to it.
	heir := addPod(t, b, "stranger", lab.Bridged)
	if heir.Addr4 != server.Addr4 {
		t.Fatalf("the address is not reused: %s, was %s", heir.Addr4, server.Addr4)
	}
	serveEcho(t, heir)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := heir.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	mustBeRefused(t, client, netip.AddrPortFrom(server.Addr4, echoPort))
	for _, gone := range []*cluster.Pod{server, stranger} {
		if err := gone.WaitState(t.Context(), agent.StateSeen, "lock-failed"); err != nil {
			t.Error(err)
		}
	}
	// Stale descriptions are in nobody's way.
	next := openPod(t, b, "server", lab.Routed)
	serveEcho(t, next)
	talks(t, client, next)
	for _, gone := range []*cluster.Pod{server, stranger} {
		if err := b.HidePod(gone); err != nil {
			t.Fatal(err)
		}
	}
	talks(t, client, next)
	mustBeRefused(t, heir, netip.AddrPortFrom(client.Addr4, echoPort))
	judge()
}

// TestDaemonRefusesPinsOfAnotherReleaseAndPodsStayLocked has live pods, in two
// shapes: maps that changed, and a whole layout of another number.
func TestDaemonRefusesPinsOfAnotherReleaseAndPodsStayLocked(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client, server := openPod(t, a, "client", lab.Routed), openPod(t, b, "server", lab.Bridged)
	serveEcho(t, server)
	judge := watchWire(t, c)
	talks(t, client, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	pins := filepath.Join(a.BPFFS, "c8s")
	for name, release := range map[string]struct{ change, back func() error }{
		"an older map": {
			change: func() error {
				if err := os.Rename(filepath.Join(pins, "v1/pods"), filepath.Join(pins, "kept")); err != nil {
					return err
				}
				m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 32, MaxEntries: 16384})
				if err != nil {
					return err
				}
				defer m.Close()
				return m.Pin(filepath.Join(pins, "v1/pods"))
			},
			back: func() error { return os.Rename(filepath.Join(pins, "kept"), filepath.Join(pins, "v1/pods")) },
		},
		"a newer layout": {
			change: func() error { return os.Rename(filepath.Join(pins, "v1"), filepath.Join(pins, "v9")) },
			back:   func() error { return os.Rename(filepath.Join(pins, "v9"), filepath.Join(pins, "v1")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := a.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := release.change(); err != nil {
				t.Fatal(err)
			}
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); a.Running(); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it runs")
				}
			}
			if log := a.Log(); a.ExitCode() == 0 || !strings.Contains(log, "everything stays locked") || !strings.Contains(log, "drain the node and uninstall") {
				t.Errorf("exit %d:\n%s", a.ExitCode(), log)
			}
			mustNotReach(t, client, to)
			// The release that made the pins finds everything as it was.
			if err := release.back(); err != nil {
				t.Fatal(err)
			}
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := client.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
				t.Fatal(err)
			}
			talks(t, client, server)
		})
	}
	judge()
}

// TestRemovedPinsAndADeadDaemonLeavePodsLocked is the worst that can happen to
// the lock short of root taking it apart: all links in the kernel end.
func TestRemovedPinsAndADeadDaemonLeavePodsLocked(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client, server := openPod(t, a, "client", lab.Bridged), openPod(t, b, "server", lab.Routed)
	serveEcho(t, server)
	judge := watchWire(t, c)
	talks(t, client, server)
	for _, n := range []*cluster.Node{a, b} {
		if err := n.RemovePins(); err != nil {
			t.Fatal(err)
		}
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range []netip.Addr{server.Addr4, server.Addr6, c.Lab.Outside("outside").Addr4, a.Lab.Addr4} {
		mustNotReach(t, client, netip.AddrPortFrom(addr, echoPort))
	}
	for _, n := range []*cluster.Node{a, b} {
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []*cluster.Pod{client, server} {
		if err := p.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
			t.Fatal(err)
		}
	}
	talks(t, client, server)
	judge()
}
