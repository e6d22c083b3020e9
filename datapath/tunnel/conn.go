// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net"
	"time"
)

// Conn is the opener's end of a stream of TCP as a net.Conn, without a socket
// between.
type Conn struct{ h Header }

var errUnfinished = errors.New("using a stream as a connection: not finished")

// Read implements net.Conn.
func (c *Conn) Read([]byte) (int, error) { return 0, errUnfinished }

// Write implements net.Conn.
func (c *Conn) Write([]byte) (int, error) { return 0, errUnfinished }

// CloseWrite ends this side's direction; the other goes on.
func (c *Conn) CloseWrite() error { return errUnfinished }

// Close ends the connection as closing a socket does.
func (c *Conn) Close() error { return errUnfinished }

// LocalAddr is the source that the other side was told.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.h.Src) }

// RemoteAddr is the destination that the other side was told.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.h.Dst) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(time.Time) error { return errUnfinished }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(time.Time) error { return errUnfinished }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(time.Time) error { return errUnfinished }
