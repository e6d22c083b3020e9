// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
)

// marked makes a socket transparent, with a mark, and tell destinations.
func marked(mark int) func(network, _ string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) {
			level, transparent, tell := unix.SOL_IP, unix.IP_TRANSPARENT, unix.IP_RECVORIGDSTADDR
			if strings.HasSuffix(network, "6") {
				level, transparent, tell = unix.SOL_IPV6, unix.IPV6_TRANSPARENT, unix.IPV6_RECVORIGDSTADDR
			}
			inner = errors.Join(
				unix.SetsockoptInt(int(fd), level, transparent, 1), unix.SetsockoptInt(int(fd), level, tell, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			)
		})
		return errors.Join(err, inner)
	}
}

// datagrams takes UDP as the daemon does: the first of a flow at the socket in
// the slot, the others at one of the flow's own. It answers each with
// "<destination> <socket> <length>\n" and the datagram, from the destination.
func (b *bench) datagrams(t testing.TB) (stop func()) {
	t.Helper()
	var all []*net.UDPConn
	for network, addr := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		lc := net.ListenConfig{Control: marked(loader.DefaultDaemonMark)}
		err := b.Do(func() error {
			pc, err := lc.ListenPacket(t.Context(), network, addr)
			if err != nil {
				return err
			}
			all = append(all, pc.(*net.UDPConn))
			return b.l.SetPacketConn(pc.(*net.UDPConn))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, pc := range all {
		go b.serveFlows(t, pc)
	}
	stop = func() {
		for _, pc := range all {
			pc.Close()
		}
	}
	t.Cleanup(stop)
	return stop
}

func (b *bench) serveFlows(t testing.TB, pc *net.UDPConn) {
	buf, oob := make([]byte, 65536), make([]byte, 256)
	for {
		n, oobn, _, from, err := pc.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		to, err := destination(oob[:oobn])
		if err != nil {
			t.Error(err)
			continue
		}
		network := "udp4"
		if to.Addr().Is6() {
			network = "udp6"
		}
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(to), Control: marked(loader.DefaultDaemonMark)}
		flow, err := b.DialWith(t.Context(), &d, network, from.String())
		if err != nil {
			t.Errorf("making the flow %s to %s: %v", from, to, err)
			continue
		}
		fmt.Fprintf(flow, "%s first %d\n%s", to, n, buf[:n])
		go func() {
			defer flow.Close()
			buf := make([]byte, 65536)
			for {
				n, err := flow.Read(buf)
				if err != nil {
					return
				}
				fmt.Fprintf(flow, "%s later %d\n%s", to, n, buf[:n])
			}
		}()
	}
}

// destination reads what IP_RECVORIGDSTADDR tells.
func destination(oob []byte) (netip.AddrPort, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, m := range messages {
		sa, err := unix.ParseOrigDstAddr(&m)
		if err != nil {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
		}
	}
	return netip.AddrPort{}, errors.New("the kernel did not tell the destination")
}

// exchange sends a datagram over a flow and returns the answer's first line.
func exchange(t *testing.T, c net.Conn, payload []byte) string {
	t.Helper()
	buf := make([]byte, 65536)
	for range 8 { // the first may be lost while the gateway is resolved
		if _, err := c.Write(payload); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			line, rest, _ := bytes.Cut(buf[:n], []byte("\n"))
			if bytes.Equal(rest, payload) { // not a late answer to what was sent before
				return string(line)
			}
		}
	}
	return "no answer"
}

func TestUDPOfAnOpenPodReachesTheDaemonWithItsDestination(t *testing.T) {
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact = clsact })
		b.routing(t)
		b.datagrams(t)
		for _, kind := range kinds {
			p, peer := b.pod(t, kind.String(), kind, true), b.pod(t, kind.String()+"-peer", kind, true)
			for _, src := range p.Addrs() {
				for name, dst := range map[string]netip.Addr{
					"outside": same(addrsOf(b.outside), src), "node": same(addrsOf(&b.Host), src), "peer": same(peer.Addrs(), src),
					"nobody": same(serviceIPs, src),
				} {
					t.Run(fmt.Sprintf("clsact=%t/%s/%s/%d", clsact, kind, name, src.BitLen()), func(t *testing.T) {
						to := netip.AddrPortFrom(dst, 53)
						c, err := p.Dial(t.Context(), "udp", to.String())
						if err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						// Whole, and in fragments both ways; the first and the later.
						for _, size := range []int{100, 3000, 40000} {
							got := exchange(t, c, bytes.Repeat([]byte("d"), size))
							if !strings.HasPrefix(got, to.String()+" ") || !strings.HasSuffix(got, fmt.Sprint(" ", size)) || size > 100 && !strings.Contains(got, "later") {
								drops, _ := b.l.Drops()
								t.Errorf("%d bytes: %q (drops %v)", size, got, nonzero(drops))
							}
						}
					})
				}
				t.Run(fmt.Sprintf("clsact=%t/%s/first in fragments/%d", clsact, kind, src.BitLen()), func(t *testing.T) {
					c, err := p.Dial(t.Context(), "udp", netip.AddrPortFrom(same(addrsOf(b.outside), src), 54).String())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if got := exchange(t, c, bytes.Repeat([]byte("d"), 5000)); !strings.Contains(got, " first 5000") {
						t.Errorf("got %q", got)
					}
				})
			}
		}
	}
}

// listensForDatagrams opens a socket of the node and tells what it heard.
func (b *bench) listensForDatagrams(t *testing.T, network, addr, remote string) (heard func() string) {
	t.Helper()
	got := make(chan string, 100)
	var pc *net.UDPConn
	if remote == "" {
		// The daemon's sockets of flows could not be bound beside one that
		// does not share its port.
		lc := net.ListenConfig{Control: reuseAddr}
		err := b.Do(func() error {
			ln, err := lc.ListenPacket(t.Context(), network, addr)
			if err == nil {
				pc = ln.(*net.UDPConn)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	} else {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), Control: marked(0)}
		c, err := b.DialWith(t.Context(), &d, network, remote)
		if err != nil {
			t.Fatal(err)
		}
		pc = c.(*net.UDPConn)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, err := pc.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if n > 0 {
				got <- addr + ": " + string(buf[:min(n, 20)])
			}
		}
	}()
	return func() string {
		select {
		case what := <-got:
			return what
		default:
			return ""
		}
	}
}

func TestDatagramsReachNoSocketOfTheNode(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.datagrams(t)
	for i, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for j, src := range p.Addrs() {
			dst := same(addrsOf(&b.Host), src)
			free, taken := 6000+10*i+j, 7000+10*i+j
			any := map[bool]string{true: "0.0.0.0", false: "::"}[src.Is4()]
			heard := []func() string{
				b.listensForDatagrams(t, "udp", net.JoinHostPort(any, fmt.Sprint(free)), ""),
				b.listensForDatagrams(t, "udp", netip.AddrPortFrom(dst, uint16(taken)).String(), netip.AddrPortFrom(src, 4000).String()),
			}
			t.Run(fmt.Sprintf("%s/%d", kind, src.BitLen()), func(t *testing.T) {
				d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 4000))}
				c, err := p.DialWith(t.Context(), &d, "udp", netip.AddrPortFrom(dst, uint16(free)).String())
				if err != nil {
					t.Fatal(err)
				}
				if got := exchange(t, c, []byte("to the daemon")); !strings.Contains(got, "first") {
					t.Errorf("the daemon did not answer in the place of the node's socket: %q", got)
				}
				c.Close()
				if c, err = p.DialWith(t.Context(), &d, "udp", netip.AddrPortFrom(dst, uint16(taken)).String()); err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, size := range []int{20, 3000} {
					before := b.count(t, bpf.ReasonHostSocket)
					if _, err := c.Write(make([]byte, size)); err != nil {
						t.Fatal(err)
					}
					eventually(t, 5*time.Second, "refusing what a connected socket would get", func() bool { return b.count(t, bpf.ReasonHostSocket) > before })
				}
				for _, h := range heard {
					if what := h(); what != "" {
						t.Errorf("a socket of the node heard %q", what)
					}
				}
			})
		}
	}
}

func TestPacketSocketsAreChecked(t *testing.T) {
	b := newBench(t, nil)
	plain, err := b.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lc := net.ListenConfig{Control: marked(0)}
	var unmarked net.PacketConn
	if err := b.Do(func() (err error) { unmarked, err = lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer unmarked.Close()
	d := net.Dialer{Control: marked(loader.DefaultDaemonMark)}
	connected, err := b.DialWith(t.Context(), &d, "udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	for says, pc := range map[string]any{"not transparent": plain, "mark": unmarked, "connected": connected} {
		if err := b.l.SetPacketConn(pc.(*net.UDPConn)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want it to say %q", err, says)
		}
	}
}
