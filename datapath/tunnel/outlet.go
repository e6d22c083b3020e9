// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// stallCheck is how long a write may be blocked before, and between, looks at
// whether anybody still wants it to finish.
const stallCheck = 250 * time.Millisecond

var errStalled = errors.New("writing to a side that does not read: the other side has gone")

// outlet writes a connection. While a write is blocked it asks abandoned
// every stallCheck; true ends the write with errStalled. It belongs to one
// goroutine at a time.
type outlet struct {
	conn      net.Conn
	rc        syscall.RawConn
	abandoned func() bool

	p     []byte
	err   error
	armed time.Time // the write deadline now set; stays set after the write, so a stall costs at most one timer per stallCheck
	try   func(fd uintptr) bool
}

func newOutlet(conn net.Conn, abandoned func() bool) *outlet {
	o := &outlet{conn: conn, abandoned: abandoned}
	if sc, ok := conn.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			o.rc = rc
		}
	}
	o.try = o.tryWrite
	return o
}

func (o *outlet) write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if o.rc == nil {
		return o.conn.Write(p)
	}
	o.p = p
	stale := true // the first expiry may be that of an earlier write's deadline
	for len(o.p) > 0 && o.err == nil {
		err := o.rc.Write(o.try)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !stale && o.abandoned() {
				o.err = errStalled
				break
			}
			stale = false
			o.arm()
		default:
			o.err = err
		}
	}
	n := len(p) - len(o.p)
	o.p = nil
	return n, o.err
}

func (o *outlet) arm() {
	o.armed = time.Now().Add(stallCheck)
	_ = o.conn.SetWriteDeadline(o.armed)
}

func (o *outlet) tryWrite(fd uintptr) bool {
	for len(o.p) > 0 {
		n, err := syscall.Write(int(fd), o.p)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			if time.Now().After(o.armed) {
				o.arm()
			}
			return false
		case err != nil:
			o.err = os.NewSyscallError("write", err)
			return true
		default:
			o.p = o.p[n:]
		}
	}
	return true
}
