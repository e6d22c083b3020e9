// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

func TestPodThatFloodsWithSYNsKeepsNobodyElseOut(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact, c.SYNRate, c.SYNBurst = clsact, 1, 5 })
		b.routing(t)
		b.daemon(t)
		for _, kind := range kinds {
			flooder := b.pod(t, "flooder-"+kind.String(), kind, true)
			to := netip.AddrPortFrom(b.outside.Addr4, 8080)
			open, err := flooder.Dial(t.Context(), "tcp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			before := b.count(t, bpf.ReasonSYNRate)
			eventually(t, 5*time.Second, "the budget being used up", func() bool {
				_, _ = helloWithin(t, flooder.NS, to, 50*time.Millisecond)
				return b.count(t, bpf.ReasonSYNRate) > before
			})
			other := b.pod(t, "other-"+kind.String(), kind, true)
			for _, dst := range addrsOf(b.outside) {
				if got, err := hello(t, other.NS, netip.AddrPortFrom(dst, 8080)); err != nil {
					t.Errorf("clsact=%t/%s: another pod does not connect: %q %v", clsact, kind, got, err)
				}
			}
			open.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := open.Write([]byte("still here\n")); err != nil {
				t.Error(err)
			}
			buf := make([]byte, 256)
			if _, err := open.Read(buf); err != nil {
				t.Errorf("clsact=%t/%s: the flooder's open connection: %v", clsact, kind, err)
			}
		}
	}
}

// A number of a link is used again: its budget goes with the link.
func TestBudgetGoesWithItsLink(t *testing.T) {
	b := newBench(t, func(c *loader.Config) { c.SYNRate, c.SYNBurst = 1, 1 })
	b.routing(t)
	b.daemon(t)
	b.firsts(t, 1<<20)
	p := b.pod(t, "p", lab.Routed, true)
	eventually(t, 5*time.Second, "the budget being used up", func() bool {
		_, _ = helloWithin(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080), 50*time.Millisecond)
		return b.count(t, bpf.ReasonSYNRate) > 0
	})
	say(t, p, b.outside.Addr4, "first")
	for _, budgets := range []string{"syn_budget", "datagram_budget"} {
		eventually(t, 5*time.Second, budgets, func() bool { return b.entries(t, budgets) == 1 })
	}
	ifindex := p.HostIfindex
	if err := b.RemovePod(p); err != nil {
		t.Fatal(err)
	}
	if err := b.l.DeletePod(ifindex); err != nil {
		t.Fatal(err)
	}
	for _, budgets := range []string{"syn_budget", "datagram_budget"} {
		if n := b.entries(t, budgets); n != 0 {
			t.Errorf("%s: %d are left", budgets, n)
		}
	}
}
