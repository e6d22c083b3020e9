// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
)

func TestTCPOfAnOpenPodReachesTheListenerWithItsDestination(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		for _, kind := range kinds {
			p := b.pod(t, kind.String(), kind, true)
			peer := b.pod(t, kind.String()+"-peer", kind, true)
			for _, src := range p.Addrs() {
				for name, dst := range map[string]netip.Addr{
					"outside": same(addrsOf(b.outside), src), "node": same(addrsOf(&b.Host), src), "peer": same(peer.Addrs(), src),
				} {
					t.Run(fmt.Sprintf("clsact=%t/%s/%s/%d", clsact, kind, name, src.BitLen()), func(t *testing.T) {
						to := netip.AddrPortFrom(dst, 8080)
						got, err := hello(t, p.NS, to)
						if err != nil {
							drops, _ := b.l.Drops()
							t.Fatalf("%v (drops %v)", err, nonzero(drops))
						}
						if want := to.String() + " " + src.String(); !strings.HasPrefix(strings.NewReplacer("[", "", "]", "").Replace(got), strings.NewReplacer("[", "", "]", "").Replace(want)) {
							t.Errorf("the listener saw %q, want %q", got, want)
						}
					})
				}
			}
		}
		if n := b.count(t, bpf.ReasonGuardBypass); n != 0 {
			t.Errorf("pod_guard refused %d packets that passed pod_ingress", n)
		}
	}
}

func nonzero(m map[bpf.Reason]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for r, n := range m {
		if n != 0 {
			out[r.String()] = n
		}
	}
	return out
}
