// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// Settings of the node that others make, and that change the way of a packet
// between the programs: early demultiplexing, and bridges that give what they
// switch to netfilter.
func TestSettingsOfTheNodeDoNotMatter(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"no early demux":      {"net.ipv4.ip_early_demux": "0", "net.ipv4.udp_early_demux": "0", "net.ipv4.tcp_early_demux": "0"},
		"bridge netfilter":    {"net.bridge.bridge-nf-call-iptables": "1", "net.bridge.bridge-nf-call-ip6tables": "1"},
		"no bridge netfilter": {"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0"},
		"route_localnet":      {"net.ipv4.conf.all.route_localnet": "1"},
		"socket migration":    {"net.ipv4.tcp_migrate_req": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			for key := range settings {
				if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err != nil {
					t.Skipf("this kernel has no %s", key)
				}
			}
			b := benchIn(t, labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a", Sysctls: settings}}, Outside: []string{"stranger"}}), nil)
			b.routing(t)
			b.daemon(t)
			b.datagrams(t)
			for _, kind := range kinds {
				p, peer := b.pod(t, kind.String(), kind, true), b.pod(t, kind.String()+"-peer", kind, true)
				for _, dst := range append(addrsOf(b.outside), peer.Addrs()...) {
					if got, err := hello(t, p.NS, netip.AddrPortFrom(dst, 8080)); err != nil {
						t.Errorf("%s: TCP to %s: %q %v", kind, dst, got, err)
					}
					c, err := p.Dial(t.Context(), "udp", netip.AddrPortFrom(dst, 53).String())
					if err != nil {
						t.Fatal(err)
					}
					if got := exchange(t, c, make([]byte, 3000)); !strings.HasSuffix(got, "3000") {
						t.Errorf("%s: UDP to %s: %q", kind, dst, got)
					}
					c.Close()
				}
			}
		})
	}
}

// Where somebody takes steer away, pods reach the listeners of the node no
// more than before.
func TestHostSocketsAreUnreachableWithoutSteer(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	b.datagrams(t)
	ln, err := b.Listen("tcp", "[::]:8080")
	if err != nil {
		t.Fatal(err)
	}
	heard := b.listensForDatagrams(t, "udp", "[::]:8080", "")
	reached := make(chan string, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			reached <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	pin := filepath.Join(b.cfg.PinDir, "v1/links/steer")
	steer, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(steer.Unpin(), steer.Detach(), steer.Close()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for _, dst := range addrsOf(&b.Host) {
			b.refused(t, p.NS, dst, bpf.ReasonHostSocket)
			before := b.count(t, bpf.ReasonHostSocket)
			send(t, p, "udp", dst)
			shout(t, p, same(p.Addrs(), dst), netip.AddrPortFrom(dst, 8080), 20)
			if b.count(t, bpf.ReasonHostSocket) == before {
				t.Errorf("%s: a datagram to %s was not refused", kind, dst)
			}
		}
	}
	if what := heard(); what != "" || len(reached) > 0 {
		t.Errorf("the node's sockets heard %q and %d connections", what, len(reached))
	}
	// The next daemon puts it back.
	l, err := b.reopen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := hello(t, b.Pods()[0].NS, netip.AddrPortFrom(b.Addr4, 8080)); err != nil {
		t.Errorf("after another start: %q %v", got, err)
	}
}

// A socket that shares the listener's port gets none of its flows.
func TestSharedPortTakesNoFlow(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	control := func(network, addr string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, inner, transparent(network, addr, c))
	}
	listen := func(addr, greeting string) *net.TCPListener {
		var ln net.Listener
		lc := net.ListenConfig{Control: control}
		lc.SetMultipathTCP(false)
		if err := b.Do(func() (err error) { ln, err = lc.Listen(context.Background(), "tcp4", addr); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, greeting)
				c.Close()
			}
		}()
		return ln.(*net.TCPListener)
	}
	ours := listen("127.0.0.1:0", "ours")
	if err := b.l.SetListener(ours); err != nil {
		t.Fatal(err)
	}
	listen(ours.Addr().String(), "theirs")
	p := b.pod(t, "p", lab.Routed, true)
	for range 20 {
		if got, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil || got != "ours" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

func TestListenersOfAnotherNamespaceAreRefused(t *testing.T) {
	b := newBench(t, nil)
	lc := net.ListenConfig{Control: transparent}
	lc.SetMultipathTCP(false)
	var ln net.Listener
	if err := b.outside.Do(func() (err error) { ln, err = lc.Listen(t.Context(), "tcp4", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := b.l.SetListener(ln.(*net.TCPListener)); err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("got %v", err)
	}
}

// add makes a link in the pod, or, unless it stays where it is made, on the
// node and moves it there.
func add(t *testing.T, b *bench, p *lab.Pod, l netlink.Link) {
	t.Helper()
	if l.Type() == "bridge" {
		if err := p.Netlink().LinkAdd(l); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := b.Netlink().LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(p.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := b.Netlink().LinkSetNsFd(l, int(ns.Fd())); err != nil {
		t.Fatal(err)
	}
}

// A pod does not open while it has a way out that no program sees.
func TestPodWithAnotherWayOutStaysClosed(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	uplink, err := b.Netlink().LinkByName(lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]netlink.Link{
		"macvlan": &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "net1", ParentIndex: uplink.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE},
		"vxlan":   &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "net3"}, VxlanId: 7, Port: 4789},
		"pair":    &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net4"}, PeerName: "net4-node"},
		"bridge":  &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "net5"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := b.pod(t, name, lab.Routed, true)
			add(t, b, p, other)
			err = b.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true})
			if harmless := name == "pair" || name == "bridge"; harmless {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), other.Attrs().Name) {
				t.Fatalf("got %v, want it to name %s", err, other.Attrs().Name)
			}
			b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		})
	}
}
