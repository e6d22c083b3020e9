// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
)

// TestPodWithAReusedAddressIsFoundAtOnce is about a bridge: the node remembers
// where the pod before was.
func TestPodWithAReusedAddressIsFoundAtOnce(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	reach := func(p *lab.Pod) {
		t.Helper()
		for _, addr := range p.Addrs() {
			ln, err := p.Listen("tcp", netip.AddrPortFrom(addr, 9000).String())
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			d := net.Dialer{Control: transparent, Timeout: 5 * time.Second}
			c, err := b.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(addr, 9000).String())
			if err != nil {
				t.Fatalf("%s of %s: %v", addr, p.Name, err)
			}
			c.Close()
		}
	}
	first := b.pod(t, "first", lab.Bridged, true)
	reach(first)
	if err := b.l.DeletePod(first.HostIfindex); err != nil {
		t.Fatal(err)
	}
	if err := b.RemovePod(first); err != nil {
		t.Fatal(err)
	}
	second := b.pod(t, "second", lab.Bridged, true)
	if second.Addr4 != first.Addr4 || second.MAC.String() == first.MAC.String() {
		t.Fatalf("%s at %s, then %s at %s", first.Addr4, first.MAC, second.Addr4, second.MAC)
	}
	reach(second)
}
