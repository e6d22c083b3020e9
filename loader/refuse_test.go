// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// refused expects that connecting fails and that the counter of one of the
// reasons grows. It tries again where the gateway is just being resolved.
func (b *bench) refused(t *testing.T, ns *lab.NS, dst netip.Addr, reasons ...bpf.Reason) {
	t.Helper()
	before := b.count(t, reasons...)
	eventually(t, 5*time.Second, fmt.Sprintf("connecting to %s being refused as %s", dst, reasons), func() bool {
		if got, err := helloWithin(t, ns, netip.AddrPortFrom(dst, 8080), 250*time.Millisecond); err == nil {
			t.Fatalf("connecting to %s worked: %q", dst, got)
		}
		return b.count(t, reasons...) > before
	})
}

func TestLockedPodReachesNothing(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.daemon(t)
		for _, kind := range kinds {
			p := b.pod(t, kind.String(), kind, false)
			for _, src := range p.Addrs() {
				t.Run(fmt.Sprintf("clsact=%t/%s/%d", clsact, kind, src.BitLen()), func(t *testing.T) {
					b.refused(t, p.NS, same(addrsOf(b.outside), src), bpf.ReasonPodLocked)
					b.refused(t, p.NS, same(addrsOf(&b.Host), src), bpf.ReasonPodLocked)
				})
			}
		}
	}
}

func TestDatagramsAreRefusedAndCountedWhereTheDaemonTakesNone(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for _, src := range p.Addrs() {
			t.Run(fmt.Sprintf("%s/%d", kind, src.BitLen()), func(t *testing.T) {
				dst := same(addrsOf(b.outside), src)
				for network, reason := range map[string]bpf.Reason{"udp": bpf.ReasonNoListener, "icmp": bpf.ReasonICMP} {
					before := b.count(t, reason)
					eventually(t, 5*time.Second, network+" being counted", func() bool {
						send(t, p, network, dst)
						return b.count(t, reason) > before
					})
				}
			})
		}
	}
}

// send sends one datagram, or one echo request through the pod's raw socket.
func send(t *testing.T, p *lab.Pod, network string, dst netip.Addr) {
	t.Helper()
	addr, payload := netip.AddrPortFrom(dst, 53).String(), []byte("canary")
	if network == "icmp" {
		addr, network, payload = dst.String(), "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
		if dst.Is6() {
			network, payload = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0}
		}
	}
	c, err := p.Dial(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the neighbour is resolved first
}

func TestClosedListenerRefuses(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	stop := b.daemon(t)
	p := b.pod(t, "p", lab.Routed, true)
	if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
		t.Fatal(err)
	}
	stop()
	for _, dst := range addrsOf(b.outside) {
		b.refused(t, p.NS, dst, bpf.ReasonNoListener)
	}
}

func TestHostListenersAreUnreachableFromPods(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	stop := b.daemon(t)
	ln, err := b.Listen("tcp", "[::]:8080")
	if err != nil {
		t.Fatal(err)
	}
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
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for _, dst := range addrsOf(&b.Host) {
			if got, err := hello(t, p.NS, netip.AddrPortFrom(dst, 8080)); err != nil {
				t.Errorf("%s: the daemon did not answer in the host's place: %q %v", kind, got, err)
			}
		}
	}
	stop()
	for _, p := range b.Pods() {
		for _, dst := range addrsOf(&b.Host) {
			b.refused(t, p.NS, dst, bpf.ReasonNoListener)
		}
	}
	select {
	case who := <-reached:
		t.Errorf("%s reached a listener of the host", who)
	default:
	}
}

func TestOnlyTheDaemonReachesAPod(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		echo(t, p)
		for _, dst := range p.Addrs() {
			t.Run(fmt.Sprintf("%s/%d", kind, dst.BitLen()), func(t *testing.T) {
				b.refused(t, b.outside.NS, dst, bpf.ReasonForwardedToPod)
				b.refused(t, b.NS, dst, bpf.ReasonNotFromDaemon)
				// A peer's address, as the daemon speaks for peers.
				from := netip.AddrPortFrom(same([]netip.Addr{netip.MustParseAddr("10.81.9.9"), netip.MustParseAddr("fd81:9::9")}, dst), 0)
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: transparent, Timeout: 2 * time.Second}
				d.SetMultipathTCP(false)
				c, err := b.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(dst, 8080).String())
				if err != nil {
					drops, _ := b.l.Drops()
					t.Fatalf("the daemon does not reach the pod: %v (%v)", err, nonzero(drops))
				}
				c.Close()
				b.set(t, p, true, true)
				defer b.set(t, p, true, false)
				if _, err := hello(t, b.NS, netip.AddrPortFrom(dst, 8080)); err != nil {
					t.Errorf("host access does not work: %v", err)
				}
			})
		}
	}
}

// echo listens in a pod on port 8080 and greets.
func echo(t *testing.T, p *lab.Pod) {
	t.Helper()
	ln, err := p.Listen("tcp", "[::]:8080")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "pod\n")
			c.Close()
		}
	}()
}

func TestSpoofedSourceIsRefused(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for _, src := range []string{"10.81.1.77", "fd81:1::77"} {
			addr := netip.MustParseAddr(src)
			err := p.Do(func() error {
				link, err := p.Netlink().LinkByName(p.Interface)
				if err != nil {
					return err
				}
				return p.Netlink().AddrAdd(link, parseAddr(t, addr))
			})
			if err != nil {
				t.Fatal(err)
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr.AsSlice()}, Timeout: 250 * time.Millisecond}
			// The forged address may already show while the gateway is resolved.
			before := b.count(t, bpf.ReasonSpoofedSource, bpf.ReasonNeighbourSpoof)
			eventually(t, 5*time.Second, "refusing "+src, func() bool {
				c, err := p.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(same(addrsOf(b.outside), addr), 8080).String())
				if err == nil {
					c.Close()
					t.Fatalf("connecting from %s worked", addr)
				}
				return b.count(t, bpf.ReasonSpoofedSource, bpf.ReasonNeighbourSpoof) > before
			})
		}
	}
}

func TestPodWhoseLinkWasMissedCannotLeaveTheNode(t *testing.T) {
	b := newBench(t, nil)
	p := labtest.Pod(t, b.Node, lab.PodSpec{Name: "missed", Kind: lab.Routed})
	for _, dst := range addrsOf(b.outside) {
		b.refused(t, p.NS, dst, bpf.ReasonForwarded)
	}
}

func TestPodsAddressOnAnotherLinkIsRefused(t *testing.T) {
	b := newBench(t, nil)
	b.daemon(t)
	p := b.pod(t, "p", lab.Routed, true)
	ln, err := b.Listen("tcp", "[::]:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, src := range p.Addrs() {
		link, err := b.outside.Netlink().LinkByName(lab.Uplink)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.outside.Netlink().AddrAdd(link, parseAddr(t, src)); err != nil {
			t.Fatal(err)
		}
		before := b.count(t, bpf.ReasonSteerSpoofed)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: src.AsSlice()}, Timeout: 250 * time.Millisecond}
		eventually(t, 5*time.Second, "refusing "+src.String()+" from outside", func() bool {
			c, err := b.outside.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(same(addrsOf(&b.Host), src), 8080).String())
			if err == nil {
				c.Close()
				t.Fatalf("connecting as %s from outside worked", src)
			}
			return b.count(t, bpf.ReasonSteerSpoofed) > before
		})
	}
}
