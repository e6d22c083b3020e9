// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

func twoNodes() lab.Options {
	return lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}, {Name: "b"}}, Outside: []string{"stranger"}}
}

// echo serves one namespace with a TCP and a UDP echo on port 7000. The UDP
// sockets are bound to one address each: a wildcard one would answer from
// the address nearest to the client.
func echo(t *testing.T, ns *lab.NS, addrs ...netip.Addr) {
	t.Helper()
	ln, err := ns.Listen("tcp", "[::]:7000")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	for _, a := range addrs {
		pc, err := ns.ListenPacket("udp", netip.AddrPortFrom(a, 7000).String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}()
	}
}

// ping sends a line to port 7000 and wants it back, from the source address given.
func ping(from *lab.NS, network string, to netip.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, network, netip.AddrPortFrom(to, 7000).String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	buf := make([]byte, 6)
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != "hello\n" {
		return fmt.Errorf("got %q", buf)
	}
	return nil
}

func TestPlainTrafficFlowsBetweenAllHostsAndPods(t *testing.T) {
	l := labtest.New(t, twoNodes())
	type end struct {
		name   string
		ns     *lab.NS
		v4, v6 netip.Addr
	}
	var ends []end
	for _, n := range l.Nodes() {
		ends = append(ends, end{"node " + n.Name, n.NS, n.Addr4, n.Addr6})
		for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
			for i := range 2 {
				p := labtest.Pod(t, n, lab.PodSpec{Name: fmt.Sprintf("%s-%s%d", n.Name, kind, i), Kind: kind})
				if !n.PodCIDR4.Contains(p.Addr4) || !n.PodCIDR6.Contains(p.Addr6) {
					t.Errorf("%s has addresses %v outside the node's range", p.Name, p.Addrs())
				}
				ends = append(ends, end{p.Name, p.NS, p.Addr4, p.Addr6})
			}
		}
	}
	s := l.Outside("stranger")
	ends = append(ends, end{s.Name, s.NS, s.Addr4, s.Addr6})
	for _, e := range ends {
		echo(t, e.ns, e.v4, e.v6)
	}
	start, pairs := time.Now(), 0
	for _, from := range ends {
		for _, to := range ends {
			for _, network := range []string{"tcp", "udp"} {
				for _, addr := range []netip.Addr{to.v4, to.v6} {
					pairs++
					if err := ping(from.ns, network, addr); err != nil {
						t.Errorf("%s to %s, %s %s: %v", from.name, to.name, network, addr, err)
					}
				}
			}
		}
	}
	t.Logf("%d exchanges in %v", pairs, time.Since(start))
}

func TestSourceAddressesArePreservedBetweenPods(t *testing.T) {
	l := labtest.New(t, twoNodes())
	a := labtest.Pod(t, l.Node("a"), lab.PodSpec{Name: "a"})
	b := labtest.Pod(t, l.Node("b"), lab.PodSpec{Name: "b", Kind: lab.Bridged})
	ln, err := b.Listen("tcp", "[::]:80")
	if err != nil {
		t.Fatal(err)
	}
	for i, dst := range b.Addrs() {
		c, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(dst, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		srv, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := srv.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); got != a.Addrs()[i] {
			t.Errorf("pod b sees %s, want %s", got, a.Addrs()[i])
		}
		_, _ = c.Close(), srv.Close()
	}
}

func TestBeforeUpRunsBetweenBirthAndConfiguration(t *testing.T) {
	l := labtest.New(t, twoNodes())
	n := l.Node("a")
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		called := false
		p := labtest.Pod(t, n, lab.PodSpec{Name: kind.String(), Kind: kind, BeforeUp: func(p *lab.Pod) error {
			called = true
			link, err := n.Netlink().LinkByIndex(p.HostIfindex)
			if err != nil {
				return err
			}
			if link.Attrs().Flags&net.FlagUp != 0 || link.Attrs().Name != p.HostLink {
				return fmt.Errorf("link %+v is already up or not the pod's", link.Attrs())
			}
			return nil
		}})
		if !called {
			t.Errorf("hook of %s was not called", p.Name)
		}
	}
	refusal := errors.New("no")
	if _, err := n.AddPod(t.Context(), lab.PodSpec{Name: "refused", BeforeUp: func(*lab.Pod) error { return refusal }}); !errors.Is(err, refusal) {
		t.Errorf("AddPod with a failing hook: %v", err)
	}
	if got := len(n.Pods()); got != 2 {
		t.Errorf("%d pods after a failed one, want 2", got)
	}
}

func TestRemovePodFreesLinkNamespaceAndAddress(t *testing.T) {
	l := labtest.New(t, twoNodes())
	n := l.Node("a")
	p := labtest.Pod(t, n, lab.PodSpec{Name: "p"})
	cmd := p.Command(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.RemovePod(p); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the pod's process ended well, want it killed")
	}
	if _, err := n.Netlink().LinkByName(p.HostLink); err == nil {
		t.Error("the host link is still there")
	}
	if _, err := os.Stat(p.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace file: %v", err)
	}
	if err := p.Do(func() error { return nil }); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("entering a removed pod: %v", err)
	}
	if err := n.RemovePod(p); err != nil {
		t.Errorf("removing twice: %v", err)
	}
	q := labtest.Pod(t, n, lab.PodSpec{Name: "q"})
	if q.Addr4 != p.Addr4 || q.UID == p.UID {
		t.Errorf("successor has %s and UID %s after %s and %s", q.Addr4, q.UID, p.Addr4, p.UID)
	}
}

func TestCommandRunsInsideTheNamespace(t *testing.T) {
	l := labtest.New(t, twoNodes())
	p := labtest.Pod(t, l.Node("a"), lab.PodSpec{Name: "p"})
	for _, ns := range []*lab.NS{p.NS, l.Node("b").NS, l.Outside("stranger").NS, l.Wire} {
		out, err := ns.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.TrimSpace(string(out)), fmt.Sprintf("net:[%d]", ns.Inode()); got != want {
			t.Errorf("command in %s ran in %s, want %s", ns.Name(), got, want)
		}
	}
	out, err := p.Command(t.Context(), "sh", "-c", "echo o; echo e >&2; exit 3").CombinedOutput()
	if err == nil || string(out) != "o\ne\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCancelKillsTheWholeProcessGroup(t *testing.T) {
	l := labtest.New(t, twoNodes())
	ctx, cancel := context.WithCancel(t.Context())
	cmd := l.Node("a").Command(ctx, "sh", "-c", "sleep 1000 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := readPid(t, out)
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the command ended well, want it killed")
	}
	waitGone(t, child)
}

func TestDoRestoresTheThreadAfterPanicAndNesting(t *testing.T) {
	l := labtest.New(t, twoNodes())
	a, b := l.Node("a"), l.Node("b")
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	origin := inode()
	err := a.Do(func() error {
		if inode() != a.Inode() {
			t.Error("not in node a")
		}
		err := b.Do(func() error {
			if inode() != b.Inode() {
				t.Error("not in node b")
			}
			return io.EOF
		})
		if inode() != a.Inode() {
			t.Error("not back in node a")
		}
		return err
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("Do returned %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = a.Do(func() error { panic("x") })
	}()
	for range 100 {
		done := make(chan uint64)
		go func() { done <- inode() }()
		if got := <-done; got != origin {
			t.Fatalf("a thread was left in namespace %d", got)
		}
	}
}

func TestBPFFSIsPrivateAndEmpty(t *testing.T) {
	l := labtest.New(t, twoNodes())
	seen := map[string]bool{}
	for _, n := range []*lab.Node{l.Node("a"), l.Node("b"), l.Node("a")} {
		dir, err := n.BPFFS()
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
			t.Errorf("%s: type %x, %v", dir, st.Type, err)
		}
		if seen[dir] {
			t.Errorf("%s was given out twice", dir)
		}
		seen[dir] = true
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 2 {
			// The kernel itself may put maps.debug and progs.debug there.
			t.Errorf("%s holds %v, %v", dir, entries, err)
		}
		if err := os.Mkdir(filepath.Join(dir, "c8s"), 0o700); err != nil {
			t.Error(err)
		}
	}
}

func readPid(t *testing.T, r io.Reader) int {
	t.Helper()
	var line bytes.Buffer
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
		if b[0] == '\n' {
			break
		}
		line.Write(b)
	}
	pid, err := strconv.Atoi(line.String())
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// waitGone fails unless the process ends (or is a zombie) soon.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d still runs", pid)
}

func TestNodeForManyPodsHasAddressesForThem(t *testing.T) {
	o := twoNodes()
	o.Nodes[0].ManyPods = true
	l := labtest.New(t, o)
	n, far := l.Nodes()[0], l.Nodes()[1]
	if want := netip.MustParsePrefix("10.101.0.0/16"); n.PodCIDR4 != want {
		t.Errorf("the range is %s, want %s", n.PodCIDR4, want)
	}
	peer := labtest.Pod(t, far, lab.PodSpec{Name: "peer"})
	echo(t, peer.NS, peer.Addr4, peer.Addr6)
	var last *lab.Pod
	for i := range 130 { // other nodes have 120 addresses
		last = labtest.Pod(t, n, lab.PodSpec{Name: fmt.Sprint("p", i)})
	}
	for _, addr := range last.Addrs() {
		if !n.PodCIDR4.Contains(addr) && !n.PodCIDR6.Contains(addr) {
			t.Errorf("%s is outside the node's range", addr)
		}
	}
	for _, addr := range peer.Addrs() {
		if err := ping(last.NS, "tcp", addr); err != nil {
			t.Error(err)
		}
	}
}
