// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
)

// SetListener gives new TCP flows of pods to a transparent listener of the
// daemon, in the IPv4 or the IPv6 slot by its own family. The slot empties when
// the listener closes, and from then on pods' packets are refused.
func (l *Loader) SetListener(ln *net.TCPListener) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return fmt.Errorf("setting the listener: %w", err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = l.fill(int(fd), unix.IPPROTO_TCP, [2]uint32{bpf.SlotTCP4, bpf.SlotTCP6})
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("setting the listener %s: %w", ln.Addr(), err)
	}
	return nil
}

// SetPacketConn gives new UDP flows of pods to a transparent socket of the
// daemon, as SetListener does for TCP. Until it is called, and after the socket
// closes, their datagrams are refused. Later datagrams of a flow reach the
// socket that the daemon connects to the pod, which needs the daemon's mark
// too. The caller asks for the destinations (IP_RECVORIGDSTADDR).
func (l *Loader) SetPacketConn(pc *net.UDPConn) error {
	if pc.RemoteAddr() != nil {
		return fmt.Errorf("setting the UDP socket %s: it is connected to %s, and takes no other flow", pc.LocalAddr(), pc.RemoteAddr())
	}
	raw, err := pc.SyscallConn()
	if err != nil {
		return fmt.Errorf("setting the UDP socket: %w", err)
	}
	// Broadcast goes to host sockets without asking steer: not a datagram
	// passes before its addresses are known.
	if err := l.InstallBroadcasts(); err != nil {
		return fmt.Errorf("setting the UDP socket %s: %w", pc.LocalAddr(), err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = l.fill(int(fd), unix.IPPROTO_UDP, [2]uint32{bpf.SlotUDP4, bpf.SlotUDP6})
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("setting the UDP socket %s: %w", pc.LocalAddr(), err)
	}
	return nil
}

// ofThisNode refuses a socket of another network namespace: it would be given
// packets of this one.
func (l *Loader) ofThisNode(fd int) error {
	own, err := l.ns.cookie()
	if err != nil {
		return fmt.Errorf("reading the node's namespace: %w", err)
	}
	its, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return fmt.Errorf("reading its namespace: %w", err)
	}
	if its != own {
		return errors.New("it was made in another network namespace than the lock's")
	}
	return nil
}

// fill checks a socket of the daemon and puts it into the first of the slots
// if it is of IPv4, into the second if it is of IPv6.
func (l *Loader) fill(fd, protocol int, slots [2]uint32) error {
	is, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("reading its protocol: %w", err)
	}
	if is != protocol {
		return fmt.Errorf("its protocol is %d instead of %d (for TCP call net.ListenConfig.SetMultipathTCP(false))", is, protocol)
	}
	if err := l.ofThisNode(fd); err != nil {
		return err
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("reading its family: %w", err)
	}
	slot, level, option := slots[0], unix.SOL_IP, unix.IP_TRANSPARENT
	if domain == unix.AF_INET6 {
		slot, level, option = slots[1], unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if on, err := unix.GetsockoptInt(fd, level, option); err != nil || on != 1 {
		return errors.Join(errors.New("it is not transparent (set IP_TRANSPARENT or IPV6_TRANSPARENT before bind)"), err)
	}
	mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	if err != nil || uint32(mark)&l.cfg.MarkMask != l.cfg.DaemonMark {
		return errors.Join(fmt.Errorf("its mark %#x is not the daemon's %#x (set SO_MARK)", mark, l.cfg.DaemonMark), err)
	}
	if err := l.begin(context.Background()); err != nil {
		return err
	}
	defer l.end()
	if err := l.objs.Listeners.Put(slot, uint64(fd)); err != nil {
		return fmt.Errorf("filling slot %d: %w", slot, err)
	}
	return nil
}
