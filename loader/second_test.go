// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// TestFiltersComeBack is about kernels without tcx, where filters are the only
// lock, and about those with it, where they are the second.
func TestFiltersComeBack(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		p := b.pod(t, "p", lab.Bridged, true)
		events := b.watch(t)
		expect(t, events, loader.LinkLocked, p.HostLink)
		first := func(parent uint32) string {
			all, err := b.Netlink().FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: p.HostIfindex}}, parent)
			if err != nil || len(all) == 0 {
				return "nothing"
			}
			if f, ok := all[0].(*netlink.BpfFilter); ok {
				return f.Name
			}
			return all[0].Type()
		}
		whole := func() bool {
			return first(netlink.HANDLE_MIN_INGRESS) == "c8s_pod_egress" && first(netlink.HANDLE_MIN_EGRESS) == "c8s_pod_ingress"
		}
		if !whole() {
			t.Fatalf("clsact=%t: %s %s", clsact, first(netlink.HANDLE_MIN_INGRESS), first(netlink.HANDLE_MIN_EGRESS))
		}
		still := b.talk(t, p)
		steps := [][]string{
			{"tc", "filter", "del", "dev", p.HostLink, "ingress"},
			{"tc", "filter", "del", "dev", p.HostLink, "egress"},
			{"tc", "qdisc", "del", "dev", p.HostLink, "clsact"},
		}
		for i, words := range steps {
			if out, err := b.Command(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			eventually(t, mended, fmt.Sprint(words), func() bool { return whole() && b.l.Restored().Programs > uint64(i) })
			still()
		}
		if !clsact {
			continue // below tcx nobody asks the order of filters
		}
		err := b.Netlink().FilterReplace(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: p.HostIfindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 7, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          pass(t).FD(), Name: "theirs", DirectAction: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, mended, "our filter before another", func() bool {
			all, err := b.Netlink().FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: p.HostIfindex}}, netlink.HANDLE_MIN_INGRESS)
			return err == nil && len(all) == 2 && whole()
		})
		still()
	}
}
