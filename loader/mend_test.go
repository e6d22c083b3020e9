// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
	"github.com/c8s-dev/c8s/test/privileged"
)

// mended is how long the watcher may take with a handful of links.
const mended = 10 * time.Second

// talk keeps a connection of an open pod and fails the test if it ever stops.
func (b *bench) talk(t *testing.T, p *lab.Pod) (still func()) {
	t.Helper()
	c, err := p.Dial(t.Context(), "tcp", netip.AddrPortFrom(b.outside.Addr4, 8080).String())
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256)
	say := func() error {
		return errors.Join(c.SetDeadline(time.Now().Add(5*time.Second)), func() error { _, err := c.Write([]byte("x")); return err }(),
			func() error { _, err := c.Read(buf); return err }())
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := say(); err != nil {
			t.Errorf("the connection: %v", err)
		}
	}
}

// needTCX skips what is about links, which filters have none of.
func needTCX(t *testing.T) {
	t.Helper()
	privileged.Require(t)
	if err := loader.HaveTCX(); err != nil {
		t.Skipf("this kernel lacks tcx (since 6.6): %v", err) // test/kernels knows the words
	}
}

// pass is a program that lets everything through and nobody after it look.
func pass(t testing.TB) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.Return(), // TC_ACT_OK
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func detach(t testing.TB, b *bench, name string) {
	t.Helper()
	l, err := link.LoadPinnedLink(filepath.Join(b.cfg.PinDir, "v1/links", name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
}

func TestRemovedPinsComeBackAndNothingStops(t *testing.T) {
	needTCX(t)
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	p, locked := b.pod(t, "p", lab.Routed, true), b.pod(t, "locked", lab.Bridged, false)
	b.watch(t)
	still := b.talk(t, p)
	before := pinnedLinks(t, b)
	for i, remove := range []string{
		fmt.Sprintf("v1/links/pod_egress-%d", p.HostIfindex), fmt.Sprintf("v1/links/pod_guard-%d", locked.HostIfindex),
		"v1/links/steer", "v1/pods", "v1/listeners", "v1/links", "v1", "",
	} {
		if err := os.RemoveAll(filepath.Join(b.cfg.PinDir, remove)); err != nil {
			t.Fatal(err)
		}
		still()
		b.refused(t, locked.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		eventually(t, mended, "the pins after "+remove+" was removed", func() bool {
			return maps.Equal(pinnedLinksIfAny(b), before) && b.l.Restored().Pins > uint64(i)
		})
		still()
	}
	if n := b.entries(t, "pods"); n != 2 {
		t.Errorf("the map has %d pods: it is not the one that was pinned", n)
	}
	// Another process finds everything, and the lock between the two works.
	second := b.open(t)
	if err := errors.Join(b.l.LockLink(t.Context(), p.HostIfindex), second.LockLink(t.Context(), p.HostIfindex)); err != nil {
		t.Error(err)
	}
	still()
}

// pinnedLinksIfAny is pinnedLinks while pins come and go.
func pinnedLinksIfAny(b *bench) map[string]pinned {
	found := map[string]pinned{}
	paths, _ := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/links/*"))
	for _, path := range paths {
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			if info, err := l.Info(); err == nil {
				found[filepath.Base(path)] = pinned{info.ID, info.Program}
			}
			l.Close()
		}
	}
	return found
}

func TestDetachedProgramsComeBack(t *testing.T) {
	needTCX(t)
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	p, locked := b.pod(t, "p", lab.Routed, true), b.pod(t, "locked", lab.Routed, false)
	events := b.watch(t)
	expect(t, events, loader.LinkLocked, p.HostLink) // it has listed what there is
	expect(t, events, loader.LinkLocked, locked.HostLink)
	uplink, err := b.Netlink().LinkByName(lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	still := b.talk(t, p)
	for _, name := range []string{
		fmt.Sprintf("pod_egress-%d", p.HostIfindex), fmt.Sprintf("pod_ingress-%d", p.HostIfindex), fmt.Sprintf("pod_guard-%d", p.HostIfindex),
		fmt.Sprintf("pod_egress-%d", locked.HostIfindex), fmt.Sprintf("node_egress-%d", uplink.Attrs().Index), "steer",
	} {
		before, counted := pinnedLinks(t, b)[name], b.l.Restored().Programs
		detach(t, b, name)
		if name != "steer" { // its place has no second lock
			still()
			b.refused(t, locked.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		}
		eventually(t, mended, name, func() bool {
			after := pinnedLinksIfAny(b)[name]
			return after.id != 0 && after.id != before.id && after.program == before.program && b.l.Restored().Programs > counted
		})
		still()
		if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
			t.Errorf("a new connection after %s: %v", name, err)
		}
	}
}

// TestSecondLockOutlivesPinsAndDaemon takes both away, in which all links end.
func TestSecondLockOutlivesPinsAndDaemon(t *testing.T) {
	needTCX(t)
	b := newBench(t, nil)
	b.routing(t)
	stop := b.daemon(t)
	open, locked := b.pod(t, "open", lab.Routed, true), b.pod(t, "locked", lab.Bridged, false)
	announced := labtest.Pod(t, b.Node, lab.PodSpec{Name: "new"})
	if err := b.l.LockNew(t.Context(), podLink(announced)); err != nil {
		t.Fatal(err)
	}
	uplink, err := b.Netlink().LinkByName(lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	drops, err := ebpf.LoadPinnedMap(filepath.Join(b.cfg.PinDir, "v1/drops"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer drops.Close()
	count := func(r bpf.Reason) (n uint64) {
		var perCPU []uint64
		if err := drops.Lookup(uint32(r), &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, c := range perCPU {
			n += c
		}
		return n
	}
	if err := errors.Join(b.l.Close(), os.RemoveAll(b.cfg.PinDir)); err != nil {
		t.Fatal(err)
	}
	for index, side := range map[int]ebpf.AttachType{open.HostIfindex: ebpf.AttachTCXIngress, uplink.Attrs().Index: ebpf.AttachTCXEgress} {
		eventually(t, mended, "the end of the programs: it is the second lock that is tested", func() bool {
			return b.Do(func() error {
				found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: side})
				if err == nil && len(found.Programs) > 0 {
					err = errors.New("not yet")
				}
				return err
			}) == nil
		})
	}
	for pod, reason := range map[*lab.Pod]bpf.Reason{open: bpf.ReasonNoListener, locked: bpf.ReasonPodLocked, announced: bpf.ReasonPodLocked} {
		for _, dst := range append(addrsOf(b.outside), addrsOf(&b.Host)...) {
			before := count(reason)
			eventually(t, mended, pod.Name+" being refused", func() bool {
				if got, err := helloWithin(t, pod.NS, netip.AddrPortFrom(dst, 8080), refusedWithin); err == nil {
					t.Fatalf("pod %s reached %s: %q", pod.Name, dst, got)
				}
				return count(reason) > before
			})
		}
		for _, dst := range pod.Addrs() {
			if got, err := helloWithin(t, b.outside.NS, netip.AddrPortFrom(dst, 8080), refusedWithin); err == nil {
				t.Errorf("from outside: %q", got)
			}
		}
	}
	// The next daemon begins from nothing, and opens only whom it is told to.
	b.l = b.open(t)
	b.daemon(t)
	b.watch(t)
	for _, pod := range []*lab.Pod{open, locked, announced} {
		if got, err := helloWithin(t, pod.NS, netip.AddrPortFrom(b.outside.Addr4, 8080), refusedWithin); err == nil {
			t.Errorf("%s is open: %q", pod.Name, got)
		}
	}
	b.set(t, open, true, false)
	if _, err := hello(t, open.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
		t.Error(err)
	}
}

// TestProgramsOfOthersDoNotStayBeforeOurs puts programs first that let
// everything through.
func TestProgramsOfOthersDoNotStayBeforeOurs(t *testing.T) {
	needTCX(t)
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	p, locked := b.pod(t, "p", lab.Routed, true), b.pod(t, "locked", lab.Routed, false)
	b.watch(t)
	var first []link.ID
	for _, at := range []struct {
		program string
		side    ebpf.AttachType
	}{{"pod_egress", ebpf.AttachTCXIngress}, {"pod_ingress", ebpf.AttachTCXEgress}} {
		name := fmt.Sprintf("%s-%d", at.program, locked.HostIfindex)
		before := pinnedLinks(t, b)[name]
		err := b.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: locked.HostIfindex, Program: pass(t), Attach: at.side, Anchor: link.Head()})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, mended, at.program+" at the front", func() bool {
			err = b.Do(func() error {
				found, err := link.QueryPrograms(link.QueryOptions{Target: locked.HostIfindex, Attach: at.side})
				first = nil
				if err == nil {
					for _, q := range found.Programs {
						id, _ := q.LinkID()
						first = append(first, id)
					}
				}
				return err
			})
			after := pinnedLinksIfAny(b)[name]
			return err == nil && len(first) == 2 && first[0] == after.id && after.program == before.program
		})
	}
	b.refused(t, locked.NS, b.outside.Addr4, bpf.ReasonPodLocked)
	b.refused(t, b.NS, locked.Addr4, bpf.ReasonPodLocked)
	if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
		t.Error(err)
	}
}

// TestLinkThatCannotBeLockedAgainIsClosedAndReported fills the hook with
// programs of others.
func TestLinkThatCannotBeLockedAgainIsClosedAndReported(t *testing.T) {
	needTCX(t)
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	p := b.pod(t, "p", lab.Routed, true)
	detach(t, b, fmt.Sprintf("pod_egress-%d", p.HostIfindex))
	var others []link.Link
	err := b.Do(func() error {
		for {
			l, err := link.AttachTCX(link.TCXOptions{Interface: p.HostIfindex, Program: next(t), Attach: ebpf.AttachTCXIngress})
			if err != nil {
				return nil
			}
			t.Cleanup(func() { l.Close() })
			if others = append(others, l); len(others) > 1000 {
				return errors.New("there is always room")
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	events := b.watch(t)
	timeout := time.After(mended)
	for failed := false; !failed; {
		select {
		case e := <-events:
			failed = e.Kind == loader.LinkFailed && e.Ifindex == p.HostIfindex && e.Err != nil
		case <-timeout:
			t.Fatal("nobody was told")
		}
	}
	b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
	for _, l := range others {
		l.Close()
	}
	eventually(t, mended, "the lock", func() bool { return pinnedLinksIfAny(b)[fmt.Sprintf("pod_egress-%d", p.HostIfindex)].id != 0 })
	b.set(t, p, true, false)
	if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
		t.Error(err)
	}
}

// next is a program that leaves everything to those after it.
func next(t testing.TB) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(), // TCX_NEXT
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestDetachedNamespaceGuardComesBack(t *testing.T) {
	b := newBench(t, nil)
	_, cgroup := newCgroup(t, "", "pod")
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p"})
	if err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true, Cgroup: cgroup}); err != nil {
		t.Fatal(err)
	}
	b.watch(t)
	outsider, err := loader.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	foreign := startProcess(t, p.NS, outsider, "foreign")
	socket := func() error {
		_, err := foreign.tell("socket", unix.AF_INET, unix.SOCK_STREAM, 0)
		return err
	}
	if socket() == nil {
		t.Fatal("there is no guard")
	}
	before := pinnedLinks(t, b)["netns_guard"]
	detach(t, b, "netns_guard")
	eventually(t, mended, "the guard", func() bool {
		after := pinnedLinksIfAny(b)["netns_guard"]
		return after.id != 0 && after.id != before.id && socket() != nil
	})
}
