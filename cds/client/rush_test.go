// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// More calls than one HTTP/2 connection takes at once wait for each other: the
// session they are bound to is not replaced.
func TestMorePodsThanAConnectionTakesAtOnce(t *testing.T) {
	const pods = 250 // twice what the CDS takes
	w := cdstest.New(t)
	var dials atomic.Int64
	cfg := configOf(t, w, w.Signed)
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	node, err := c.EnrolNode(t.Context(), w.Attester("node"))
	if err != nil {
		t.Fatal(err)
	}
	pod := client.Pod{
		Namespace: "default", Name: "web-0", UID: "uid", Images: []policy.Digest{policytest.Digest(policytest.Web)}, Addrs: []netip.Addr{netip.MustParseAddr("10.81.1.2")},
	}
	before := dials.Load()
	var wg sync.WaitGroup
	for range pods {
		wg.Go(func() {
			if _, err := c.EnrolPod(t.Context(), node, pod); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wg.Wait()
	if n := dials.Load() - before; n != 1 {
		t.Errorf("%d connections for the node's pods, want one", n)
	}
}
