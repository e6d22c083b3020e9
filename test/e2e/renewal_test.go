// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	shortLife = 10 * time.Second
	// renewalWatch covers several renewals, at half of shortLife each.
	renewalWatch = 25 * time.Second
	// expirySlack is how late the expiry of a certificate ends its tunnels.
	expirySlack = 5 * time.Second
)

func shortCertificates(o *cluster.Options) {
	o.CDSFlags = []string{"--certificate-life", shortLife.String()}
}

func TestRenewalsFailNoConnection(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := newCluster(t, shortCertificates)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Bridged)
	serveEcho(t, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)

	expiries := map[*cluster.Pod][]time.Time{client: nil, server: nil}
	connections := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < renewalWatch; connections++ {
		<-tick.C
		conn, _, err := connect(t, client, to)
		if err != nil {
			t.Fatalf("connection %d, after %s: %v", connections, time.Since(began), err)
		}
		if got, err := echo(conn, "still there?"); err != nil || got != "still there?" {
			t.Fatalf("connection %d, after %s: got %q (%v)", connections, time.Since(began), got, err)
		}
		for p, seen := range expiries {
			s, err := p.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.State != agent.StateOpen {
				t.Fatalf("%s is %s (%s %s)", p.Name, s.State, s.Reason, s.Detail)
			}
			if !slices.ContainsFunc(seen, s.NotAfter.Equal) {
				expiries[p] = append(seen, s.NotAfter)
			}
		}
	}
	for p, seen := range expiries {
		if len(seen) < 3 {
			t.Errorf("%s had certificates that end at %v, want at least 3 of them", p.Name, seen)
		}
	}
	t.Logf("%d connections over %d certificates of the client and %d of the server", connections, len(expiries[client]), len(expiries[server]))
}

// A connection is carried by one tunnel, and a tunnel is as good as the
// certificates it was made with: at their end, the connection ends.
func TestEstablishedConnectionEndsWithItsTunnelsCertificates(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := newCluster(t, shortCertificates)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	serveEcho(t, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	began := time.Now()
	conn, _, err := connect(t, client, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	one := make([]byte, 1)
	for err == nil {
		time.Sleep(50 * time.Millisecond)
		if _, err = conn.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(conn, one)
		}
		if time.Since(began) > shortLife+expirySlack {
			t.Fatalf("alive %s after it was made", time.Since(began))
		}
	}
	if lived := time.Since(began); lived < time.Second {
		t.Errorf("it lived only %s", lived)
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the application saw %v, want a reset", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		flows, err := c.Nodes[0].Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(flows, func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Dst == to })
		if i >= 0 {
			if flows[i].Reason != "policy-changed" {
				t.Errorf("closed with reason %q, want the tunnel's policy-changed", flows[i].Reason)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no record of its end")
		}
	}
	if conn, _, err := connect(t, client, to); err != nil {
		t.Errorf("a new connection: %v", err)
	} else {
		conn.Close()
	}
}
