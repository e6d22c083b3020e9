// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/test/lab"
)

// The kernel gives multicast and broadcast to all sockets that want them
// without asking steer: the node's services, and tunnels such as VXLAN.
func TestMulticastAndBroadcastReachNobody(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.datagrams(t)
	const port = 5353
	heard := []func() string{b.listensForDatagrams(t, "udp4", fmt.Sprint("0.0.0.0:", port), ""), b.listensForDatagrams(t, "udp6", fmt.Sprintf("[::]:%d", port), "")}
	targets := append(broadcasts(t, b), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::fb"), netip.MustParseAddr("ff02::1"))
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		for _, to := range targets {
			t.Run(kind.String()+"/"+to.String(), func(t *testing.T) {
				for _, size := range []int{20, 3000} {
					before := b.count(t, bpf.ReasonMulticast)
					eventually(t, 5*time.Second, "refusing it", func() bool {
						shout(t, p, same(p.Addrs(), to), netip.AddrPortFrom(to, port), size)
						return b.count(t, bpf.ReasonMulticast) > before
					})
				}
			})
		}
	}
	t.Run("a network that the node just got", func(t *testing.T) {
		p := b.Pods()[0]
		up, err := b.Netlink().LinkByName(lab.Uplink)
		if err != nil {
			t.Fatal(err)
		}
		addr := parseAddr(t, netip.MustParseAddr("10.77.1.1"))
		addr.Mask = net.CIDRMask(24, 32)
		if err := b.Netlink().AddrAdd(up, addr); err != nil {
			t.Fatal(err)
		}
		to := netip.MustParseAddrPort("10.77.1.255:5353")
		// Nobody told the programs yet: nftables refuses it.
		for range 5 {
			shout(t, p, p.Addr4, to, 20)
		}
		b.routing(t)
		before := b.count(t, bpf.ReasonMulticast)
		eventually(t, 5*time.Second, "refusing it in the programs", func() bool {
			shout(t, p, p.Addr4, to, 20)
			return b.count(t, bpf.ReasonMulticast) > before
		})
		if err := b.Netlink().AddrDel(up, addr); err != nil {
			t.Fatal(err)
		}
		b.routing(t)
		c, err := p.Dial(t.Context(), "udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := exchange(t, c, []byte("an address like any other")); !strings.HasPrefix(got, to.String()) {
			t.Errorf("the address of a network that is gone: %q", got)
		}
	})
	for _, h := range heard {
		if what := h(); what != "" {
			t.Errorf("a socket of the node heard %q", what)
		}
	}
}

// broadcasts are the broadcast addresses of the node's own networks.
func broadcasts(t *testing.T, b *bench) (found []netip.Addr) {
	t.Helper()
	out, err := b.Command(t.Context(), "ip", "-4", "route", "show", "table", "local", "type", "broadcast").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		found = append(found, netip.MustParseAddr(strings.Fields(line)[1]))
	}
	if len(found) < 2 {
		t.Fatalf("the node has no broadcast addresses: %s", out)
	}
	return found
}

// shout sends one datagram through the pod's link, to whatever address: in
// Ethernet frames of its own, cut at 1,440 bytes.
func shout(t *testing.T, p *lab.Pod, src netip.Addr, to netip.AddrPort, size int) {
	t.Helper()
	link, err := p.Netlink().LinkByName(p.Interface)
	if err != nil {
		t.Fatal(err)
	}
	dgram := make([]byte, 8+size)
	binary.BigEndian.PutUint16(dgram, 4000)
	binary.BigEndian.PutUint16(dgram[2:], to.Port())
	binary.BigEndian.PutUint16(dgram[4:], uint16(len(dgram)))
	if src.Is6() { // IPv4 may leave the checksum out
		binary.BigEndian.PutUint16(dgram[6:], checksum6(src, to.Addr(), dgram))
	}
	err = p.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for at := 0; at < len(dgram); at += 1440 {
			part := dgram[at:min(at+1440, len(dgram))]
			frame := ipPart(src, to.Addr(), at, len(dgram), part)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ipPart is an Ethernet frame to everybody with a part of a datagram.
func ipPart(src, dst netip.Addr, at, whole int, part []byte) []byte {
	frame := []byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 5}
	more, cut := at+len(part) < whole, len(part) < whole
	if src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(part)))
		binary.BigEndian.PutUint16(h[4:], 0xc85)
		offset := uint16(at / 8)
		if more {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(h[6:], offset)
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], sum(h))
		return append(append(binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP), h...), part...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 64
	if cut {
		f := []byte{unix.IPPROTO_UDP, 0, 0, 0, 0, 0, 0xc, 0x85}
		offset := uint16(at)
		if more {
			offset |= 1
		}
		binary.BigEndian.PutUint16(f[2:], offset)
		h[6], part = unix.IPPROTO_FRAGMENT, append(f, part...)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(part)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(append(binary.BigEndian.AppendUint16(frame, unix.ETH_P_IPV6), h...), part...)
}

func checksum6(src, dst netip.Addr, dgram []byte) uint16 {
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, 0, byte(len(dgram)>>8), byte(len(dgram)), 0, 0, 0, unix.IPPROTO_UDP)
	return sum(append(pseudo, dgram...))
}

// sum is the Internet checksum (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
