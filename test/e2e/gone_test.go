// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// A pod that vanishes leaves the daemon with data for it. What the kernel does
// with that then must not go out: neither the packets, over the default route
// (routed pods), nor errors that quote them (bridged ones).
func TestNothingOfAPodThatIsGoneLeavesTheNode(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client := openPod(t, a, "client", lab.Routed)
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		t.Run(kind.String(), func(t *testing.T) {
			server := openPod(t, b, "server", kind)
			serveEcho(t, server)
			canary := capture.NewCanary()
			wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Canary: canary, Pods: podPrefixes(c)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for _, addr := range []netip.Addr{server.Addr4, server.Addr6} {
				pour(t, ctx, client, netip.AddrPortFrom(addr, echoPort), canary)
			}
			if err := b.Lab.RemovePod(server.Pod); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); kind == lab.Bridged && drops(t, b)["icmp-quote"] == 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the kernel counted no icmp-quote: this test proves nothing; drops: %v", drops(t, b))
				}
			}
			time.Sleep(2 * time.Second) // time for more
			report := wire.Stop()
			if err := report.Complete(); err != nil || report.PlainPackets+report.CanaryHits > 0 {
				t.Errorf("on the wire in the clear: %v %v (%v)", report.Plain, report.Canaries, err)
			}
			cancel()
			if err := b.HidePod(server); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// pour sends data over a connection until ctx ends or it breaks.
func pour(t *testing.T, ctx context.Context, from *cluster.Pod, to netip.AddrPort, data []byte) {
	t.Helper()
	conn, _, err := connect(t, from, to)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer conn.Close()
		for ctx.Err() == nil {
			if _, err := conn.Write(data); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
}
