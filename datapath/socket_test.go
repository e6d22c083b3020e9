// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTransparentListenersHaveTheirSocketOptions(t *testing.T) {
	const mark = 0x2000
	listeners, err := ListenTransparent(t.Context(), Marks{Capture: 0x1000, Daemon: mark, Mask: 0x3000})
	must(t, err)
	for _, ln := range listeners {
		defer ln.Close()
	}
	if len(listeners) != 2 {
		t.Fatalf("%d listeners, want IPv4 and IPv6", len(listeners))
	}
	for i, ln := range listeners {
		level, opt := unix.SOL_IP, unix.IP_TRANSPARENT
		if i == 1 {
			level, opt = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("%s is not loopback", ln.Addr())
		}
		raw, err := ln.SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) {
			for name, o := range map[string]struct{ level, opt, want int }{
				"transparent":         {level, opt, 1},
				"mark":                {unix.SOL_SOCKET, unix.SO_MARK, mark},
				"plain TCP, no MPTCP": {unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
				"user timeout":        {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60000},
			} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.want {
					t.Errorf("%s, %s: %d, %v; want %d", ln.Addr(), name, got, err, o.want)
				}
			}
		}))
	}
}

func TestListenRefusesOtherFamilies(t *testing.T) {
	if ln, err := Listen(t.Context(), "tcp", unmarked); err == nil {
		ln.Close()
		t.Error("accepted")
	}
}
