// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

func podLink(p *lab.Pod) loader.PodLink {
	return loader.PodLink{Ifindex: p.HostIfindex, NetnsPath: p.Path(), GuestInterface: p.Interface}
}

// lasting lists the programs that are pinned to a pod's link.
func (b *bench) lasting(t testing.TB, ifindex int) []string {
	t.Helper()
	suffix := fmt.Sprintf("-%d", ifindex)
	found, err := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/links/*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range found {
		found[i] = strings.TrimSuffix(filepath.Base(path), suffix)
	}
	return found
}

// qdiscs lists what there is on a pod's link for filters.
func (b *bench) qdiscs(t testing.TB, p *lab.Pod) []string {
	t.Helper()
	all, err := b.Netlink().QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: p.HostIfindex}})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			found = append(found, q.Type())
		}
	}
	return found
}

var allPrograms = []string{"pod_egress", "pod_guard", "pod_ingress"}

// lastingLock is what a pod's link ends with: programs that are pinned, above
// filters, or filters alone.
func lastingLock(clsact bool) (pinned, qdiscs []string) {
	if clsact {
		return nil, []string{"clsact"}
	}
	return allPrograms, []string{"clsact"}
}

func TestNewLinkIsLockedBeforeItsLockLasts(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	for _, kind := range kinds {
		p := labtest.Pod(t, b.Node, lab.PodSpec{Name: kind.String(), Kind: kind})
		if err := b.l.LockFirst(p.HostIfindex); err != nil {
			t.Fatal(err)
		}
		if pins, qdiscs := b.lasting(t, p.HostIfindex), b.qdiscs(t, p); len(pins) != 0 || !slices.Equal(qdiscs, []string{"clsact"}) {
			t.Fatalf("%s: programs %v, qdiscs %v: it is not the first lock that is tested", kind, pins, qdiscs)
		}
		b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		b.refused(t, p.NS, b.Addr6, bpf.ReasonPodLocked)
		b.refused(t, b.NS, p.Addr4, bpf.ReasonPodLocked)
		b.set(t, p, true, false)
		want, left := lastingLock(loader.HaveTCX() != nil)
		if pins, qdiscs := b.lasting(t, p.HostIfindex), b.qdiscs(t, p); !slices.Equal(pins, want) || !slices.Equal(qdiscs, left) {
			t.Errorf("%s is open: programs %v, qdiscs %v", kind, pins, qdiscs)
		}
		if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 80)); err != nil {
			t.Error(err)
		}
	}
}

func TestLockOfANewLinkComesToLast(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p"})
		for range 2 { // as for CNI's CHECK
			if err := b.l.LockNew(t.Context(), podLink(p)); err != nil {
				t.Fatal(err)
			}
		}
		want, left := lastingLock(clsact)
		eventually(t, 5*time.Second, "the programs", func() bool {
			return slices.Equal(b.lasting(t, p.HostIfindex), want) && slices.Equal(b.qdiscs(t, p), left)
		})
		b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
	}
}

// TestFirstLockLeavesOthersAlone has on the link what would run before a filter
// or lie in its place.
func TestFirstLockLeavesOthersAlone(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	pass := pass(t) // no filter is asked
	cases := map[string]func(*lab.Pod) error{
		"ingress": func(p *lab.Pod) error {
			return b.Netlink().QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: p.HostIfindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}})
		},
		"clsact": func(p *lab.Pod) error {
			return b.Netlink().QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: p.HostIfindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
		},
		"": func(p *lab.Pod) error { // tcx
			var l link.Link
			err := b.Do(func() (err error) {
				l, err = link.AttachTCX(link.TCXOptions{Interface: p.HostIfindex, Program: pass, Attach: ebpf.AttachTCXEgress})
				return err
			})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	}
	if loader.HaveTCX() != nil { // nothing runs before filters, and they need clsact
		delete(cases, "ingress")
		delete(cases, "")
	}
	for name, others := range cases {
		p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p" + name})
		if err := others(p); err != nil {
			t.Fatal(err)
		}
		if err := b.l.LockFirst(p.HostIfindex); err != nil {
			t.Fatal(err)
		}
		link, err := b.Netlink().LinkByIndex(p.HostIfindex)
		if err != nil {
			t.Fatal(err)
		}
		if found := b.programsOn(t, link); !slices.Equal(found, []string{"pod_egress", "pod_ingress"}) {
			t.Errorf("%q: programs %v", name, found)
		}
		b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		b.refused(t, b.NS, p.Addr4, bpf.ReasonPodLocked)
		b.set(t, p, true, false)
		want := name
		if want == "" {
			want = "clsact" // of the second lock
		}
		if got := strings.Join(b.qdiscs(t, p), ""); got != want {
			t.Errorf("the qdisc of others was %q, there is %q", name, got)
		}
	}
}

// An ingress qdisc takes a filter for the egress hook, and never asks it there.
func TestIngressQdiscInThePlaceOfClsactIsRefused(t *testing.T) {
	b := newBench(t, func(c *loader.Config) { c.ForceClsact = true })
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p"})
	attrs := netlink.QdiscAttrs{LinkIndex: p.HostIfindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}
	if err := b.Netlink().QdiscAdd(&netlink.Ingress{QdiscAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	if err := b.l.LockLink(t.Context(), p.HostIfindex); err == nil || !strings.Contains(err.Error(), "ingress qdisc") {
		t.Errorf("locking: %v", err)
	}
	err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true})
	if err == nil || !strings.Contains(err.Error(), "ingress qdisc") {
		t.Errorf("opening: %v", err)
	}
	if err := b.Netlink().QdiscDel(&netlink.Ingress{QdiscAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	if err := b.l.LockLink(t.Context(), p.HostIfindex); err != nil {
		t.Errorf("when it has gone: %v", err)
	}
}

func TestAnnouncedLinksAreLeftTheirTimeAndNoMore(t *testing.T) {
	b := newBench(t, func(c *loader.Config) { c.Uplinks = []string{"eth*"} })
	early := labtest.Pod(t, b.Node, lab.PodSpec{Name: "early"})
	events := b.watch(t)
	expect(t, events, loader.LinkLocked, early.HostLink)
	n := 0
	// born tells whether a new link was left alone when the watcher had seen it.
	born := func() bool {
		n++
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("new%d", n)
		if err := b.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("mid%d", n)}); err != nil {
			t.Fatal(err)
		}
		added, err := b.Netlink().LinkByName(attrs.Name)
		if err != nil {
			t.Fatal(err)
		}
		attrs.Name = fmt.Sprintf("eth1%d", n)
		if err := b.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("eth2%d", n)}); err != nil {
			t.Fatal(err)
		}
		uplink, err := b.Netlink().LinkByName(attrs.Name)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "the uplink that came after it being guarded", func() bool { return len(b.programsOn(t, uplink)) > 0 })
		alone := len(b.programsOn(t, added)) == 0
		expect(t, events, loader.LinkLocked, fmt.Sprintf("new%d", n))
		return alone
	}
	if born() {
		t.Error("a link was left alone before any was announced")
	}
	eventually(t, 20*time.Second, "a new link that is left alone after another was announced", func() bool {
		if err := b.l.LockNew(t.Context(), podLink(early)); err != nil {
			t.Fatal(err)
		}
		return born()
	})
	if born() {
		t.Error("a link was left alone after another that nobody announced")
	}
}

// BenchmarkLock is what a new pod waits for.
func BenchmarkLock(b *testing.B) {
	for name, lock := range map[string]func(*bench, *lab.Pod) error{
		"LockLink": func(n *bench, p *lab.Pod) error { return n.l.LockLink(b.Context(), p.HostIfindex) },
		"LockNew":  func(n *bench, p *lab.Pod) error { return n.l.LockNew(b.Context(), podLink(p)) },
	} {
		b.Run(name, func(b *testing.B) {
			n := newBench(b, nil)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				p := labtest.Pod(b, n.Node, lab.PodSpec{Name: fmt.Sprint("p", i)})
				b.StartTimer()
				if err := lock(n, p); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				n.set(b, p, false, false) // waits for the rest
				if err := n.RemovePod(p); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
