// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// mustBeRefused checks that no connection comes about.
func mustBeRefused(t *testing.T, from *cluster.Pod, to netip.AddrPort) {
	t.Helper()
	conn, _, err := connect(t, from, to)
	if err == nil {
		conn.Close()
		t.Errorf("%s reached %s", from.Name, to)
	} else if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s to %s: the application saw %v, want a reset", from.Name, to, err)
	}
}

func TestPodWithAReusedAddressInheritsNoTunnel(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client, server := openPod(t, a, "client", lab.Routed), openPod(t, b, "server", lab.Routed)
	serveEcho(t, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	for range 3 { // leaves idle tunnels behind
		conn, _, err := connect(t, client, to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	standing, _, err := connect(t, client, to)
	if err != nil {
		t.Fatal(err)
	}
	defer standing.Close()

	if err := b.RemovePod(server); err != nil {
		t.Fatal(err)
	}
	if err := standing.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := standing.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the connection to the removed pod: %v, want its end", err)
	}
	heir := openPod(t, b, "stranger", lab.Routed)
	if heir.Addr4 != server.Addr4 {
		t.Fatalf("the address is not reused: %s, was %s", heir.Addr4, server.Addr4)
	}
	serveEcho(t, heir)
	mustBeRefused(t, client, to)

	// The other way round: the heir of a client's address is no client.
	if err := b.RemovePod(heir); err != nil {
		t.Fatal(err)
	}
	server = openPod(t, b, "server", lab.Routed)
	serveEcho(t, server)
	conn, _, err := connect(t, client, to)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := a.RemovePod(client); err != nil {
		t.Fatal(err)
	}
	heir = openPod(t, a, "stranger", lab.Routed)
	if heir.Addr4 != client.Addr4 {
		t.Fatalf("the address is not reused: %s, was %s", heir.Addr4, client.Addr4)
	}
	mustBeRefused(t, heir, to)
}

func TestHostReachesAPodOnlyWithHostAccess(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[1]
	server := openPod(t, node, "server", lab.Routed)
	serveEcho(t, server)
	dial := func(within time.Duration) error {
		t.Helper()
		for _, addr := range []netip.Addr{server.Addr4, server.Addr6} {
			conn, err := dialFrom(t, &node.Lab.Host, netip.AddrPortFrom(addr, echoPort), within)
			if err != nil {
				return err
			}
			conn.Close()
		}
		return nil
	}
	setAccess := func(allowed bool) {
		t.Helper()
		if err := c.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads[1].HostAccess = allowed }); err != nil {
			t.Fatal(err)
		}
	}
	mustBeKeptOut := func() {
		t.Helper()
		before := drops(t, node)["not-from-daemon"]
		deadline := time.Now().Add(20 * time.Second)
		for dial(500*time.Millisecond) == nil { // the kernel follows the manifest within a moment
			if time.Now().After(deadline) {
				t.Fatal("a process of the node reaches the pod")
			}
		}
		if after := drops(t, node)["not-from-daemon"]; after <= before {
			t.Errorf("the kernel counted %d not-from-daemon, before it was %d", after, before)
		}
	}
	mustBeKeptOut()
	setAccess(true)
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := dial(2 * time.Second)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with host access: %v", err)
		}
	}
	setAccess(false)
	mustBeKeptOut()
}

// What an earlier daemon opened is nobody's word any more.
func TestPodThatVanishedWhileTheDaemonWasDeadIsLocked(t *testing.T) {
	c := newCluster(t, func(o *cluster.Options) { o.Workloads[1].HostAccess = true })
	node := c.Nodes[1]
	server := openPod(t, node, "server", lab.Routed)
	serveEcho(t, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	conn, err := dialFrom(t, &node.Lab.Host, to, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := node.HidePod(server); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.WaitEnrolled(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := drops(t, node)["pod-locked"]
	if conn, err := dialFrom(t, &node.Lab.Host, to, time.Second); err == nil {
		conn.Close()
		t.Error("a process of the node reaches a pod that no source names")
	}
	if after := drops(t, node); after["pod-locked"] <= before {
		t.Errorf("the kernel did not count pod-locked: %v", after)
	}
}
