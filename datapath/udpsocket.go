// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Receive buffers, in bytes of payload and of what the kernel adds to it; the
// kernel doubles them.
const (
	firstsBuffer = 16 << 20  // of the sockets that first datagrams come to, all pods together
	flowBuffer   = 256 << 10 // of one flow: some 200 datagrams of an Ethernet frame, 4 of the largest size
)

// ListenTransparentUDP opens the sockets that pods' first datagrams are steered
// to: one for IPv4 and, where the host has IPv6, one for IPv6. They are bound
// to loopback, carry the daemon's mark (SO_MARK) and tell where each datagram
// was sent to.
func ListenTransparentUDP(ctx context.Context, marks Marks) ([]*net.UDPConn, error) {
	var out []*net.UDPConn
	for _, family := range []struct{ network, addr string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}} {
		lc := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
			return udpSocket(raw, network == "udp6", marks, true)
		}}
		c, err := lc.ListenPacket(ctx, family.network, family.addr)
		if err == nil {
			out = append(out, c.(*net.UDPConn))
			continue
		}
		if family.network == "udp6" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			break // no IPv6 here: pods that use it stay locked
		}
		for _, c := range out {
			_ = c.Close()
		}
		return nil, fmt.Errorf("opening a transparent UDP socket (%s): %w; it needs CAP_NET_ADMIN", family.network, err)
	}
	return out, nil
}

// udpSocket prepares a UDP socket towards pods, for captured packets only.
// firsts: it is not of one flow.
func udpSocket(raw syscall.RawConn, ipv6 bool, marks Marks, firsts bool) error {
	var opErr error
	err := raw.Control(func(fd uintptr) {
		opErr = takeCaptured(int(fd), marks)
		set := func(level, opt, value int) {
			if opErr == nil {
				opErr = unix.SetsockoptInt(int(fd), level, opt, value)
			}
		}
		level, transparent, tell, discover := unix.SOL_IP, unix.IP_TRANSPARENT, unix.IP_RECVORIGDSTADDR, unix.IP_MTU_DISCOVER
		if ipv6 {
			level, transparent, tell, discover = unix.SOL_IPV6, unix.IPV6_TRANSPARENT, unix.IPV6_RECVORIGDSTADDR, unix.IPV6_MTU_DISCOVER
		}
		set(level, transparent, 1)
		// What the link cannot carry in one packet is fragmented, whatever
		// ICMP may have said about the path.
		set(level, discover, unix.IP_PMTUDISC_DONT) // the same number as IPV6_PMTUDISC_DONT
		if marks.Daemon != 0 {
			set(unix.SOL_SOCKET, unix.SO_MARK, int(marks.Daemon))
		}
		buffer := flowBuffer
		if firsts {
			buffer = firstsBuffer
			set(level, tell, 1)
		} else {
			set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	})
	if err = errors.Join(err, opErr); err != nil {
		return fmt.Errorf("preparing a UDP socket towards pods: %w", err)
	}
	return nil
}

// connectUDP makes the socket of one flow: bound to what the pod takes for the
// other end, connected to the pod. From then on the kernel gives it all that
// the pod sends there. An invalid local is the node's own address.
func connectUDP(ctx context.Context, local, pod netip.AddrPort, marks Marks) (*net.UDPConn, error) {
	network := "udp4"
	if pod.Addr().Is6() {
		network = "udp6"
	}
	d := net.Dialer{ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		return udpSocket(raw, network == "udp6", marks, false)
	}}
	if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	c, err := d.DialContext(ctx, network, pod.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// dialPodUDP is connectUDP as DialPod does it: the application sees the pod
// that sends, with another port where its own is taken on this node.
func dialPodUDP(ctx context.Context, src, dst netip.AddrPort, marks Marks) (*net.UDPConn, error) {
	if src.Addr() == dst.Addr() {
		return connectUDP(ctx, netip.AddrPort{}, dst, marks)
	}
	c, err := connectUDP(ctx, src, dst, marks)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return connectUDP(ctx, netip.AddrPortFrom(src.Addr(), 0), dst, marks)
	}
	return c, err
}

// origDstUDP reads where a datagram was sent to from its control message.
func origDstUDP(oob []byte) netip.AddrPort {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		switch {
		// struct sockaddr_in and sockaddr_in6; the port is in network order.
		case h.Level == unix.SOL_IP && h.Type == unix.IP_ORIGDSTADDR && len(data) >= unix.SizeofSockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[4:8])), binary.BigEndian.Uint16(data[2:]))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_ORIGDSTADDR && len(data) >= unix.SizeofSockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(data[8:24])), binary.BigEndian.Uint16(data[2:]))
		}
		oob = rest
	}
	return netip.AddrPort{}
}
