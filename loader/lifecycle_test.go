// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
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

func parseAddr(t testing.TB, a netip.Addr) *netlink.Addr {
	t.Helper()
	addr, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// eventually waits for what must come within the time.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s did not happen within %s", what, within)
}

func TestPodsStayLockedWithoutALoader(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		stop := b.daemon(t)
		open, locked := b.pod(t, "open", lab.Routed, true), b.pod(t, "locked", lab.Bridged, false)
		if err := b.l.Close(); err != nil {
			t.Fatal(err)
		}
		stop()
		for _, p := range []*lab.Pod{open, locked} {
			for _, dst := range append(addrsOf(b.outside), addrsOf(&b.Host)...) {
				if got, err := helloWithin(t, p.NS, netip.AddrPortFrom(dst, 8080), 250*time.Millisecond); err == nil {
					t.Errorf("clsact=%t: pod %s reached %s: %q", clsact, p.Name, dst, got)
				}
			}
		}
		if err := b.l.LockLink(t.Context(), open.HostIfindex); err == nil {
			t.Error("a closed loader locks links")
		}
	}
}

func TestSecondOpenReplacesProgramsInPlace(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		p := b.pod(t, "p", lab.Bridged, true)
		before := pinnedLinks(t, b)
		if err := b.l.Close(); err != nil {
			t.Fatal(err)
		}
		// The listener outlives the loader, and the pod stays open.
		b.l = b.open(t)
		if err := b.l.LockLink(t.Context(), p.HostIfindex); err != nil {
			t.Fatal(err)
		}
		if got, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
			t.Errorf("clsact=%t: the pod lost its state: %q %v", clsact, got, err)
		}
		b.set(t, p, true, false)
		after := pinnedLinks(t, b)
		for name, was := range before {
			if is := after[name]; is.id != was.id || is.program == was.program {
				t.Errorf("clsact=%t: %s was %v, is %v; want the same link with another program", clsact, name, was, is)
			}
		}
		if len(before) != len(after) {
			t.Errorf("clsact=%t: links were %v, are %v", clsact, before, after)
		}
	}
}

type pinned struct {
	id      link.ID
	program ebpf.ProgramID
}

func pinnedLinks(t *testing.T, b *bench) map[string]pinned {
	t.Helper()
	found := map[string]pinned{}
	paths, err := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/links/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = pinned{info.ID, info.Program}
		l.Close()
	}
	return found
}

func TestRoutingComesBackAfterAFlush(t *testing.T) {
	b := newBench(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.l.Routing(ctx) }()
	b.daemon(t)
	p := b.pod(t, "p", lab.Routed, true)
	works := func() bool {
		for _, dst := range addrsOf(b.outside) {
			if _, err := helloWithin(t, p.NS, netip.AddrPortFrom(dst, 8080), 500*time.Millisecond); err != nil {
				return false
			}
		}
		return true
	}
	eventually(t, 3*time.Second, "the routing", works)
	for _, flush := range []string{"ip rule del pref 100", "ip -6 rule del pref 100", "ip route flush table 15008", "ip -6 route flush table 15008", "nft flush ruleset", "nft flush chain inet c8s output"} {
		t.Run(flush, func(t *testing.T) {
			words := strings.Fields(flush)
			if out, err := b.Command(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			start := time.Now()
			if strings.HasPrefix(flush, "nft") {
				eventually(t, 3*time.Second, "the nftables table", func() bool {
					out, _ := b.Command(t.Context(), "nft", "list", "table", "inet", "c8s").CombinedOutput()
					return strings.Count(string(out), "notrack") == 2
				})
			} else {
				eventually(t, 3*time.Second, "the routing", works)
			}
			t.Logf("back after %s", time.Since(start))
		})
	}
	// What is in place is left alone.
	handle := func() string {
		out, err := b.Command(t.Context(), "nft", "-a", "list", "table", "inet", "c8s").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	before := handle()
	time.Sleep(1500 * time.Millisecond)
	if after := handle(); after != before {
		t.Errorf("the table was replaced without need:\n%s\n%s", before, after)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !works() {
		t.Error("the end of Routing removed it")
	}
}

func TestUninstallLeavesNothing(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		snapshot := func() string {
			var all strings.Builder
			for _, command := range []string{"ip rule", "ip -6 rule", "ip route show table all", "nft list ruleset", "tc qdisc show"} {
				words := strings.Fields(command)
				out, err := b.Command(t.Context(), words[0], words[1:]...).CombinedOutput()
				if err != nil && !strings.Contains(string(out), "does not exist") {
					t.Fatalf("%s: %v: %s", command, err, out)
				}
				// The kernel's own routes come and go while new links find
				// their addresses.
				own := func(line string) bool { return strings.Contains(line, " proto kernel ") }
				fmt.Fprintf(&all, "%s:\n%s\n", command, strings.Join(slices.DeleteFunc(strings.Split(string(out), "\n"), own), "\n"))
			}
			return all.String()
		}
		if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
			t.Fatal(err)
		}
		p, q := labtest.Pod(t, b.Node, lab.PodSpec{Name: "p"}), labtest.Pod(t, b.Node, lab.PodSpec{Name: "q"})
		clean := snapshot()
		b.l = b.open(t)
		b.routing(t)
		for _, pod := range []*lab.Pod{p, q} {
			if err := b.l.LockLink(t.Context(), pod.HostIfindex); err != nil {
				t.Fatal(err)
			}
			b.set(t, pod, true, false)
		}
		// A process keeps the pod's namespace findable, as in a real pod.
		cmd := p.Command(t.Context(), "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd2 := q.Command(t.Context(), "sleep", "60")
		if err := cmd2.Start(); err != nil {
			t.Fatal(err)
		}
		b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonNoListener)
		if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
			t.Fatal(err)
		}
		if got := snapshot(); got != clean {
			t.Errorf("clsact=%t: left behind:\n%s\nbefore:\n%s", clsact, got, clean)
		}
		if _, err := os.Stat(b.cfg.PinDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("clsact=%t: %s is still there: %v", clsact, b.cfg.PinDir, err)
		}
		echo(t, p)
		echo(t, q)
		for _, dst := range p.Addrs() {
			for _, from := range []*lab.NS{b.outside.NS, q.NS, b.NS} {
				if _, err := hello(t, from, netip.AddrPortFrom(dst, 8080)); err != nil {
					t.Errorf("clsact=%t: %s still cannot reach the pod: %v", clsact, from.Name(), err)
				}
			}
		}
		if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
			t.Errorf("uninstalling twice: %v", err)
		}
	}
}

func TestPodReceives100MB(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		p := b.pod(t, "p", lab.Bridged, true)
		ln, err := p.Listen("tcp", "[::]:9000")
		if err != nil {
			t.Fatal(err)
		}
		const size = 100 << 20
		got := make(chan int64, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			got <- n
		}()
		d := net.Dialer{Control: transparent, Timeout: 2 * time.Second}
		d.SetMultipathTCP(false)
		c, err := b.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(p.Addr4, 9000).String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		start := time.Now()
		buf := make([]byte, 1<<20)
		for range size >> 20 {
			if _, err := c.Write(buf); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		if n := <-got; n != size {
			t.Errorf("clsact=%t: the pod received %d bytes", clsact, n)
		}
		t.Logf("clsact=%t: %.1f Gbit/s", clsact, float64(size)*8/time.Since(start).Seconds()/1e9)
		drops, _ := b.l.Drops()
		if drops[bpf.ReasonGuardBypass] != 0 {
			t.Errorf("clsact=%t: pod_guard refused %d packets", clsact, drops[bpf.ReasonGuardBypass])
		}
	}
}

func TestPacketThatSkipsTheHostSideIsRefusedInThePod(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		p := b.pod(t, "p", lab.Routed, true)
		echo(t, p)
		// Whoever takes pod_ingress away, the guard still stands.
		if !clsact {
			detach(t, b, fmt.Sprintf("pod_ingress-%d", p.HostIfindex))
		}
		if out, err := b.Command(t.Context(), "tc", "filter", "del", "dev", p.HostLink, "egress").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, dst := range p.Addrs() {
			b.refused(t, b.NS, dst, bpf.ReasonGuardBypass)
		}
	}
}
