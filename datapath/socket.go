// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// podCongestion is the congestion control of connections to pods. They cross
// no network and lose nothing; a host default of bbr halves them.
const podCongestion = "cubic"

// ListenTransparent opens the listeners that pods are steered to: one for
// IPv4 and, where the host has IPv6, one for IPv6. They are bound to loopback
// and answer under whatever address the pod asked for.
func ListenTransparent(ctx context.Context, marks Marks) ([]*net.TCPListener, error) {
	var out []*net.TCPListener
	for _, family := range []string{"tcp4", "tcp6"} {
		ln, err := Listen(ctx, family, marks)
		if err != nil {
			if family == "tcp6" && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				break // no IPv6 here: pods that use it stay locked
			}
			for _, l := range out {
				_ = l.Close()
			}
			return nil, err
		}
		out = append(out, ln)
	}
	return out, nil
}

// Listen opens one transparent listener; family is tcp4 or tcp6.
func Listen(ctx context.Context, family string, marks Marks) (*net.TCPListener, error) {
	addr := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[family]
	if addr == "" {
		return nil, fmt.Errorf("opening a transparent listener: family %q is neither tcp4 nor tcp6", family)
	}
	// A SOCKMAP refuses multipath sockets, which are Go's default.
	lc := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: func(_, _ string, raw syscall.RawConn) error {
		return podSocket(raw, family == "tcp6", marks)
	}}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, family, addr)
	if err != nil {
		return nil, fmt.Errorf("opening a transparent listener (%s): %w; it needs CAP_NET_ADMIN", family, err)
	}
	return ln.(*net.TCPListener), nil
}

// podSocket prepares a socket towards pods: transparent, marked as the
// daemon's, for captured packets only.
func podSocket(raw syscall.RawConn, ipv6 bool, marks Marks) error {
	var opErr error
	err := raw.Control(func(fd uintptr) {
		level, opt := unix.SOL_IP, unix.IP_TRANSPARENT
		if ipv6 {
			level, opt = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		if opErr = takeCaptured(int(fd), marks); opErr == nil {
			opErr = unix.SetsockoptInt(int(fd), level, opt, 1)
		}
		if opErr == nil {
			opErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if opErr == nil && marks.Daemon != 0 {
			opErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(marks.Daemon))
		}
	})
	if err = errors.Join(err, opErr); err != nil {
		return fmt.Errorf("preparing a socket towards pods: %w", err)
	}
	return tunnel.Control(raw, podCongestion)
}

// DialPod connects to a local pod as the pod at src, so that the application
// sees who it talks to. A port that is taken is replaced; a pod that talks to
// itself sees the node, because its own address would never come back here.
// The socket carries the daemon's mark (SO_MARK); 0 sets none.
func DialPod(ctx context.Context, src, dst netip.AddrPort, marks Marks, timeout time.Duration) (*net.TCPConn, error) {
	if src.Addr() == dst.Addr() {
		return dialPodFrom(ctx, nil, dst, marks, timeout)
	}
	c, err := dialPodFrom(ctx, net.TCPAddrFromAddrPort(src), dst, marks, timeout)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return dialPodFrom(ctx, net.TCPAddrFromAddrPort(netip.AddrPortFrom(src.Addr(), 0)), dst, marks, timeout)
	}
	return c, err
}

func dialPodFrom(ctx context.Context, src *net.TCPAddr, dst netip.AddrPort, marks Marks, timeout time.Duration) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: tunnel.KeepAlive(), Timeout: timeout}
	if src != nil {
		d.LocalAddr = src
	}
	d.SetMultipathTCP(false)
	d.ControlContext = func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		return podSocket(raw, dst.Addr().Is6(), marks)
	}
	c, err := d.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func tunnelSocket(_, _ string, raw syscall.RawConn) error { return tunnel.Control(raw, "") }

// ListenTunnels opens the listener for other nodes' tunnels.
func ListenTunnels(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnelSocket}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening for tunnels on %s: %w", addr, err)
	}
	return ln.(*net.TCPListener), nil
}

func dialNode(ctx context.Context, node netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnelSocket}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, "tcp", node.String())
}

// localAddr is the address a pod asked for: the kernel gave it to the
// accepted socket.
func localAddr(c *net.TCPConn) netip.AddrPort { return unmap(c.LocalAddr()) }

func unmap(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// reset closes a connection so that its application sees a refusal at once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
