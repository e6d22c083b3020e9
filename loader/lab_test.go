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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// bench is a node under the lock and a host outside.
type bench struct {
	*lab.Node
	outside *lab.Host
	cfg     loader.Config
	l       *loader.Loader
}

func newBench(t testing.TB, change func(*loader.Config)) *bench {
	t.Helper()
	return benchIn(t, labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}, Outside: []string{"stranger"}}), change)
}

func benchIn(t testing.TB, lb *lab.Lab, change func(*loader.Config)) *bench {
	t.Helper()
	b := &bench{Node: lb.Node("a"), outside: lb.Outside("stranger")}
	dir, err := b.BPFFS()
	if err != nil {
		t.Fatal(err)
	}
	b.cfg = loader.Config{PinDir: dir + "/c8s", Uplinks: []string{lab.Uplink}, LSM: loader.LSMOff}
	if change != nil {
		change(&b.cfg)
	}
	b.l = b.open(t)
	return b
}

func (b *bench) open(t testing.TB) *loader.Loader {
	t.Helper()
	var l *loader.Loader
	if err := b.Do(func() (err error) { l, err = loader.Open(b.cfg); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// routing installs the routing once.
func (b *bench) routing(t testing.TB) {
	t.Helper()
	if err := b.l.InstallRouting(); err != nil {
		t.Fatal(err)
	}
}

// transparent is what the daemon sets on its sockets.
func transparent(network, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		if network == "tcp6" {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		inner = errors.Join(
			unix.SetsockoptInt(int(fd), level, option, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, loader.DefaultDaemonMark),
		)
	})
	return errors.Join(err, inner)
}

// daemon listens as the daemon does and echoes "<destination> <source>\n",
// then whatever it reads.
func (b *bench) daemon(t testing.TB) (stop func()) {
	t.Helper()
	var listeners []net.Listener
	for network, addr := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		lc := net.ListenConfig{Control: transparent}
		lc.SetMultipathTCP(false)
		err := b.Do(func() error {
			ln, err := lc.Listen(context.Background(), network, addr)
			if err != nil {
				return err
			}
			listeners = append(listeners, ln)
			return b.l.SetListener(ln.(*net.TCPListener))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, ln := range listeners {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "%s %s\n", c.LocalAddr(), c.RemoteAddr())
					io.Copy(c, c)
				}()
			}
		}()
	}
	stop = func() {
		for _, ln := range listeners {
			ln.Close()
		}
	}
	t.Cleanup(stop)
	return stop
}

// pod adds a pod that the loader knows, open or not.
func (b *bench) pod(t testing.TB, name string, kind lab.Kind, open bool) *lab.Pod {
	t.Helper()
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: name, Kind: kind, BeforeUp: func(p *lab.Pod) error {
		return b.l.LockLink(t.Context(), p.HostIfindex)
	}})
	b.set(t, p, open, false)
	return p
}

func (b *bench) set(t testing.TB, p *lab.Pod, open, hostAccess bool) {
	t.Helper()
	err := b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: open, HostAccess: hostAccess})
	if err != nil {
		t.Fatal(err)
	}
}

// count is the number of refusals by any of the reasons.
func (b *bench) count(t testing.TB, reasons ...bpf.Reason) (n uint64) {
	t.Helper()
	drops, err := b.l.Drops()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reasons {
		n += drops[r]
	}
	return n
}

// hello connects from within ns and returns the daemon's greeting.
func hello(t testing.TB, ns *lab.NS, dst netip.AddrPort) (string, error) {
	t.Helper()
	return helloWithin(t, ns, dst, 4*time.Second) // a lost first neighbour solicitation costs one
}

func helloWithin(t testing.TB, ns *lab.NS, dst netip.AddrPort, limit time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", dst.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	var line string
	buf := make([]byte, 1)
	for {
		if _, err := c.Read(buf); err != nil {
			return line, err
		}
		if buf[0] == '\n' {
			return line, nil
		}
		line += string(buf)
	}
}

func addrsOf(h *lab.Host) []netip.Addr { return []netip.Addr{h.Addr4, h.Addr6} }

// same is the address of the same family as like.
func same(addrs []netip.Addr, like netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.BitLen() == like.BitLen() {
			return a
		}
	}
	return netip.Addr{}
}

var kinds = []lab.Kind{lab.Routed, lab.Bridged}

func unwrap(t testing.TB, ln net.Listener) *net.TCPListener {
	t.Helper()
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		t.Fatalf("%T", ln)
	}
	return tcp
}

func withPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 8080) }

// entries counts those of a pinned map.
func (b *bench) entries(t testing.TB, name string) (n int) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(b.cfg.PinDir, "v1", name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	all := m.Iterate()
	for all.Next(&key, &value) {
		n++
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// attachments are the values of Config.ForceClsact to test with. In the matrix
// of kernels (test/kernels) each attaches its own way.
func attachments() []bool {
	switch tcx := loader.HaveTCX() == nil; {
	case !tcx:
		return []bool{true}
	case os.Getenv("C8S_KERNEL_GUEST") != "":
		return []bool{false}
	}
	return []bool{false, true}
}

// programsOn are the loader's programs on a link of the node, by tcx or clsact.
func (b *bench) programsOn(t testing.TB, link netlink.Link) (found []string) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/links/*-"+strconv.Itoa(link.Attrs().Index)))
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		name, _, _ := strings.Cut(filepath.Base(pin), "-")
		found = append(found, name)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, _ := b.Netlink().FilterList(link, parent) // an error: it has no clsact
		for _, f := range filters {
			if f, ok := f.(*netlink.BpfFilter); ok {
				found = append(found, strings.TrimPrefix(f.Name, "c8s_"))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found) // most are locked twice
}
