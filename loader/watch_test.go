// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// watch runs WatchLinks for the rest of the test.
func (b *bench) watch(t *testing.T) <-chan loader.LinkEvent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan loader.LinkEvent, 1000), make(chan error, 1)
	go func() { done <- b.l.WatchLinks(ctx, func(e loader.LinkEvent) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return events
}

func expect(t *testing.T, events <-chan loader.LinkEvent, kind, name string) {
	t.Helper()
	timeout := time.After(3 * time.Second)
	for {
		select {
		case e := <-events:
			if e.Kind == kind && e.Name == name {
				return
			}
			if e.Kind == loader.LinkFailed {
				t.Errorf("unexpected: %+v", e)
			}
		case <-timeout:
			t.Fatalf("no event %s of %s", kind, name)
		}
	}
}

func TestNewPodLinkIsLockedAtBirthAndForgottenAtItsEnd(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	early := labtest.Pod(t, b.Node, lab.PodSpec{Name: "early"})
	events := b.watch(t)
	expect(t, events, loader.LinkLocked, early.HostLink)
	late := labtest.Pod(t, b.Node, lab.PodSpec{Name: "late", Kind: lab.Bridged, BeforeUp: func(p *lab.Pod) error {
		expect(t, events, loader.LinkLocked, p.HostLink)
		return nil
	}})
	for _, p := range []*lab.Pod{early, late} {
		b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		b.refused(t, p.NS, b.Addr6, bpf.ReasonPodLocked)
	}
	b.set(t, late, true, false)
	if _, err := hello(t, late.NS, netip.AddrPortFrom(b.outside.Addr4, 80)); err != nil {
		t.Fatal(err)
	}
	if err := b.RemovePod(late); err != nil {
		t.Fatal(err)
	}
	expect(t, events, loader.LinkGone, late.HostLink)
	left, err := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/links/*-"+strconv.Itoa(late.HostIfindex)))
	if err != nil || len(left) != 0 {
		t.Errorf("pins left: %v %v", left, err)
	}
}

func TestUplinkThatAppearsLaterIsGuardedAndExcludedLinksAreLeftAlone(t *testing.T) {
	b := newBench(t, func(c *loader.Config) { c.Uplinks = []string{"eth*"}; c.ExcludeLinks = []string{"mine*"} })
	events := b.watch(t)
	for _, name := range []string{"eth7", "mine0", "vethx"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := b.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "mine-" + name}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, events, loader.LinkLocked, "vethx")
	for name, program := range map[string]string{"eth7": "node_egress", "mine0": "", "vethx": "pod_egress"} {
		link, err := b.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		found := b.programsOn(t, link)
		if program == "" && len(found) != 0 || program != "" && !slices.Contains(found, program) {
			t.Errorf("%s: %v, want %q", name, found, program)
		}
	}
}

func TestPodThatJoinsABridgeLaterStillReachesTheListener(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	b.watch(t)
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p", Kind: lab.Bridged, BeforeUp: func(p *lab.Pod) error {
		return b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true})
	}})
	works := func() bool {
		for _, dst := range addrsOf(b.outside) {
			if _, err := helloWithin(t, p.NS, netip.AddrPortFrom(dst, 80), 500*time.Millisecond); err != nil {
				return false
			}
		}
		return true
	}
	eventually(t, 3*time.Second, "the connection through the bridge", works)
	bridge, err := b.Netlink().LinkByName(lab.PodBridge)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Netlink().LinkSetHardwareAddr(bridge, []byte{2, 0, 0, 0, 0, 9}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Second, "the connection through the bridge with its new address", works)
}

func TestEventsReportRefusals(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	p := b.pod(t, "p", lab.Routed, true)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	want := netip.AddrPortFrom(b.outside.Addr4, 8080)
	go func() { _, _ = hello(t, p.NS, want) }()
	for e := range b.l.Events(ctx) {
		if e.Reason == bpf.ReasonNoListener && e.Dst == want {
			if e.Ifindex != p.HostIfindex || e.Src.Addr() != p.Addr4 || e.Src.Port() == 0 || e.Proto != 6 || time.Since(e.Time).Abs() > time.Second {
				t.Errorf("got %+v", e)
			}
			return
		}
	}
	t.Error("no event")
}

func TestEventsEndWithTheContext(t *testing.T) {
	b := newBench(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for e := range b.l.Events(ctx) {
		t.Logf("%+v", e)
	}
}

func TestSetPodRefusesWhatItCannotGuard(t *testing.T) {
	b := newBench(t, nil)
	p, q, r := b.pod(t, "p", lab.Routed, true), b.pod(t, "q", lab.Routed, true), b.pod(t, "r", lab.Routed, true)
	forge(t, r, p)
	good := loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true}
	for name, change := range map[string]func(*loader.Pod){
		"no namespace":           func(p *loader.Pod) { p.NetnsPath = "" },
		"the node's namespace":   func(p *loader.Pod) { p.NetnsPath = b.Path() },
		"another pod's":          func(p *loader.Pod) { p.NetnsPath = q.Path() },
		"another pod's, by name": func(p *loader.Pod) { p.NetnsPath, p.GuestInterface = q.Path(), q.Interface },
		"one that looks like it": func(p *loader.Pod) { p.NetnsPath, p.GuestInterface = r.Path(), r.Interface },
		"no address":             func(p *loader.Pod) { p.Addrs = nil },
		"two IPv4 addresses":     func(p *loader.Pod) { p.Addrs = append(p.Addrs[:1:1], netip.MustParseAddr("10.1.1.1")) },
		"loopback":               func(p *loader.Pod) { p.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		"another pod's address":  func(p *loader.Pod) { p.Addrs = q.Addrs() },
		"a link that is missing": func(p *loader.Pod) { p.Ifindex = 99999 },
		"an interface missing":   func(p *loader.Pod) { p.GuestInterface = "eth9" },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			change(&bad)
			if err := b.l.SetPod(bad); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
			if bad.Ifindex == p.HostIfindex {
				b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
			}
			if err := b.l.SetPod(good); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// forge gives p, in the place of its link, a pair within its namespace that has
// the numbers of other's link.
func forge(t *testing.T, p, other *lab.Pod) {
	t.Helper()
	guest, err := other.Netlink().LinkByName(other.Interface)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"link", "del", p.Interface},
		{
			"link", "add", p.Interface, "index", strconv.Itoa(guest.Attrs().Index),
			"type", "veth", "peer", "name", "peer", "index", strconv.Itoa(other.HostIfindex),
		},
	} {
		if out, err := p.Command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

func TestAddressMovesToItsNewPod(t *testing.T) {
	b := newBench(t, nil)
	p, q := b.pod(t, "p", lab.Routed, true), b.pod(t, "q", lab.Routed, true)
	if err := b.l.DeletePod(q.HostIfindex); err != nil {
		t.Fatal(err)
	}
	b.refused(t, q.NS, b.outside.Addr4, bpf.ReasonPodLocked)
	if err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: q.Addrs(), Open: true}); err != nil {
		t.Fatal(err)
	}
	b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonSpoofedSource, bpf.ReasonNeighbourSpoof)
}

func TestListenerThatCannotServePodsIsRefused(t *testing.T) {
	b := newBench(t, nil)
	ln, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.l.SetListener(unwrap(t, ln)); err == nil {
		t.Error("accepted a listener that is not transparent")
	} else {
		t.Log(err)
	}
}

func TestRequiredFeaturesArePresentHere(t *testing.T) {
	for _, f := range loader.Probe() {
		t.Logf("%+v", f)
		if f.Required && !f.Present {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
}
