// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const udpHeaderLen = 8

// rawSender sends datagrams to pods from any address and port without taking
// that port: for single answers, and for ports that a program of the node has.
// Safe for concurrent use.
type rawSender struct {
	marks Marks

	mu    sync.Mutex
	conns [2]*net.IPConn // IPv4, IPv6; opened when they are needed
}

// send sends p to the pod at to as if it came from from.
func (s *rawSender) send(from, to netip.AddrPort, p []byte) error {
	c, err := s.conn(to.Addr().Is6())
	if err != nil {
		return err
	}
	b := make([]byte, udpHeaderLen+len(p))
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	copy(b[udpHeaderLen:], p)
	binary.BigEndian.PutUint16(b[6:], udpChecksum(from.Addr(), to.Addr(), b))
	src := (&ipv4.ControlMessage{Src: from.Addr().AsSlice()}).Marshal()
	if to.Addr().Is6() {
		src = (&ipv6.ControlMessage{Src: from.Addr().AsSlice()}).Marshal()
	}
	_, _, err = c.WriteMsgIP(b, src, &net.IPAddr{IP: to.Addr().AsSlice()})
	return err
}

func (s *rawSender) conn(v6 bool) (*net.IPConn, error) {
	i, network, addr := 0, "ip4:udp", "127.0.0.1"
	if v6 {
		i, network, addr = 1, "ip6:udp", "::1"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[i] != nil {
		return s.conns[i], nil
	}
	// Bound to loopback, where nothing of the mesh arrives, and deaf besides:
	// a raw socket gets a copy of what comes to its address.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if err := udpSocket(raw, v6, s.marks, false); err != nil {
			return err
		}
		var opErr error
		err := raw.Control(func(fd uintptr) { opErr = deafen(int(fd)) })
		return errors.Join(err, opErr)
	}}
	c, err := lc.ListenPacket(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("opening a raw socket towards pods: %w; it needs CAP_NET_RAW", err)
	}
	s.conns[i] = c.(*net.IPConn)
	return s.conns[i], nil
}

func (s *rawSender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.conns {
		if c != nil {
			_ = c.Close()
			s.conns[i] = nil
		}
	}
}

// udpChecksum is that of RFC 768 and RFC 8200, section 8.1: over a pseudo
// header and the datagram, whose own field must be zero.
func udpChecksum(from, to netip.Addr, datagram []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(datagram))
	for _, b := range [][]byte{from.AsSlice(), to.AsSlice(), datagram} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		return 0xffff // zero would say that there is no checksum
	}
	return ^uint16(sum)
}
