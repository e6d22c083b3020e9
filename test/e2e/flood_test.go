// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// A bridge that does not know where an address is sends to every port. It
// forgets at every change of its ports; here it never learns.
func TestPodsOnABridgeDoNotHearWhatIsForOthers(t *testing.T) {
	c := newCluster(t)
	a, b := c.Nodes[0], c.Nodes[1]
	client, server := openPod(t, a, "client", lab.Routed), openPod(t, b, "server", lab.Bridged)
	neighbour := openPod(t, b, "stranger", lab.Bridged)
	serveEcho(t, server)
	onNode(t, b, "ip", "link", "set", "cni0", "type", "bridge", "ageing_time", "0")
	canary := capture.NewCanary()
	heard, err := capture.Start(neighbour.NS, neighbour.Interface, capture.Options{Canary: canary, Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []netip.Addr{server.Addr4, server.Addr6} {
		conn, _, err := connect(t, client, netip.AddrPortFrom(addr, echoPort))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := echo(conn, string(canary)); err != nil || back != string(canary) {
			t.Errorf("%s: %q, %v", addr, back, err)
		}
	}
	if n := drops(t, b)["not-for-pod"]; n == 0 {
		t.Error("the bridge sent nothing to other ports: this test proves nothing")
	}
	report := heard.Stop()
	if err := report.Complete(); err != nil || report.CanaryHits+report.PlainPackets > 0 {
		t.Errorf("the neighbour heard %v and %v (%v)", report.Canaries, report.Plain, err)
	}
}
