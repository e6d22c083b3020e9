// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket options of every TCP connection of the datapath.
const (
	keepAliveIdle     = 30 * time.Second
	keepAliveInterval = 10 * time.Second
	keepAliveCount    = 3
	// userTimeout ends a connection whose data nobody acknowledges. It is
	// above the keep-alive limit, so that either finds a dead peer in about
	// a minute.
	userTimeout = 60 * time.Second
)

// KeepAlive is the keep-alive setting for listeners and diallers.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount}
}

// Control sets the options that a socket must have before it connects or
// listens: accepted connections inherit them. congestion is a congestion
// control algorithm, or empty for the host's.
func Control(raw syscall.RawConn, congestion string) error {
	var opErr error
	err := raw.Control(func(fd uintptr) {
		opErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		if opErr == nil && congestion != "" {
			// Not every kernel has every algorithm; the host's own is
			// correct too, only slower.
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		}
	})
	if err != nil {
		return err
	}
	return opErr
}
