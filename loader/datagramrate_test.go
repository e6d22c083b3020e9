// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// firsts are sockets for first datagrams that nobody reads until told. heard
// empties the one of dst's family until a datagram says text or none has come
// for the time.
func (b *bench) firsts(t *testing.T, bytes int) (heard func(dst netip.Addr, text string, within time.Duration) bool) {
	t.Helper()
	socks := map[bool]*net.UDPConn{} // by whether it is of IPv4
	for network, addr := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		lc := net.ListenConfig{Control: func(network, addr string, c syscall.RawConn) error {
			var inner error
			err := c.Control(func(fd uintptr) {
				inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
			})
			return errors.Join(err, inner, marked(loader.DefaultDaemonMark)(network, addr, c))
		}}
		err := b.Do(func() error {
			pc, err := lc.ListenPacket(t.Context(), network, addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { pc.Close() })
			socks[network == "udp4"] = pc.(*net.UDPConn)
			return b.l.SetPacketConn(pc.(*net.UDPConn))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return func(dst netip.Addr, text string, within time.Duration) bool {
		pc, buf := socks[dst.Is4()], make([]byte, 65536)
		for {
			pc.SetReadDeadline(time.Now().Add(within))
			n, err := pc.Read(buf)
			if err != nil || string(buf[:n]) == text {
				return err == nil
			}
		}
	}
}

// say sends one datagram from a pod, which begins a flow.
func say(t *testing.T, p *lab.Pod, dst netip.Addr, text string) {
	t.Helper()
	c, err := p.Dial(t.Context(), "udp", netip.AddrPortFrom(dst, 5353).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// flood begins n flows of a pod with datagrams of size bytes, as fast as it can.
func flood(t *testing.T, p *lab.Pod, dst netip.Addr, n, size int) {
	t.Helper()
	pc, err := p.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	payload := make([]byte, size)
	for i := range n {
		to := netip.AddrPortFrom(dst, uint16(1024+i%60000))
		if _, err := pc.(*net.UDPConn).WriteToUDPAddrPort(payload, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
}

// The queue for first datagrams is one for all pods: nobody reads it here, as
// while the daemon is busy, and one pod sends several times what it holds.
func TestPodThatFloodsWithFirstDatagramsTakesNoneOfOthers(t *testing.T) {
	const queue = 4 << 20 // the kernel doubles it; the burst is a quarter of that
	for _, clsact := range attachments() {
		b := newBench(t, func(c *loader.Config) { c.ForceClsact, c.DatagramRate = clsact, 1<<16 })
		b.routing(t)
		heard := b.firsts(t, queue)
		for _, kind := range kinds {
			other := b.pod(t, "other-"+kind.String(), kind, true)
			for _, dst := range addrsOf(b.outside) {
				finds := func(p *lab.Pod) { // its gateway
					eventually(t, 10*time.Second, p.Name+"'s way to the node", func() bool {
						say(t, p, dst, p.Name)
						return heard(dst, p.Name, 100*time.Millisecond)
					})
				}
				finds(other)
				for size, n := range map[int]int{0: 40000, 1400: 20000, 20000: 1500} {
					flooder := b.pod(t, fmt.Sprintf("flooder-%s-%d-%t", kind, size, dst.Is4()), kind, true)
					finds(flooder)
					before := b.count(t, bpf.ReasonDatagramRate)
					flood(t, flooder, dst, n, size)
					if b.count(t, bpf.ReasonDatagramRate) == before {
						t.Errorf("clsact=%t/%s/%d bytes: %d first datagrams at once were all admitted", clsact, kind, size, n)
					}
					say(t, other, dst, "me too")
					if !heard(dst, "me too", time.Second) {
						t.Errorf("clsact=%t/%s/%d bytes to %s: another pod's first datagram was lost", clsact, kind, size, dst)
					}
					if err := errors.Join(b.RemovePod(flooder), b.l.DeletePod(flooder.HostIfindex)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}
