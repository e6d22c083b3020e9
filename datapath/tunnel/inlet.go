// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"io"
	"net"
	"os"
	"syscall"
)

// inlet reads a connection with as few system calls as the traffic allows and
// without holding memory while nothing arrives: it waits for readability
// first and takes a buffer only when there is something to read into it.
// It belongs to one goroutine at a time.
type inlet struct {
	conn net.Conn
	rc   syscall.RawConn // nil when conn has no descriptor
	bufs *account
	head int // free bytes kept in front of the data
	tail int // bytes of the buffer's end that stay unused

	buf   *buffer
	r, w  int // unread data is buf.b[r:w]
	class int // of the next buffer: follows the traffic
	err   error
	try   func(fd uintptr) bool
	once  func(fd uintptr) bool
}

func newInlet(conn net.Conn, bufs *account, head, tail int) *inlet {
	in := &inlet{conn: conn, bufs: bufs, head: head, tail: tail}
	if sc, ok := conn.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			in.rc = rc
		}
	}
	in.try = in.tryRead
	in.once = func(fd uintptr) bool { in.tryRead(fd); return true }
	return in
}

func (in *inlet) buffered() int { return in.w - in.r }

func (in *inlet) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.b[in.r:in.w]
}

// consume marks n bytes as read and gives an emptied buffer back.
func (in *inlet) consume(n int) {
	in.r += n
	if in.r == in.w {
		in.drop()
	}
}

func (in *inlet) drop() {
	in.bufs.put(in.buf)
	in.buf, in.r, in.w = nil, 0, 0
}

func (in *inlet) limit() int { return len(in.buf.b) - in.tail }

// room makes space for at least one more byte, and for need bytes in all when
// data is already held, as far as the budget goes.
func (in *inlet) room(need int) {
	if in.buf == nil || in.limit()-in.r >= need && in.w < in.limit() {
		return
	}
	old, from, n := in.buf, in.r, in.w-in.r
	if need > in.limit()-in.head {
		larger := max(classFor(need+in.head+in.tail), in.class)
		if in.buf = in.bufs.get(larger); in.buf.class <= old.class {
			in.bufs.put(in.buf)
			in.buf = old
		}
	}
	copy(in.buf.b[in.head:], old.b[from:from+n])
	in.r, in.w = in.head, in.head+n
	if in.buf != old {
		in.bufs.put(old)
	}
}

// fits makes room for need bytes and reports whether there is.
func (in *inlet) fits(need int) bool {
	in.room(need)
	return in.buf == nil || in.limit()-in.r >= need
}

// fill waits until more data, the end or an error arrives. need is a hint:
// how many bytes the caller wants to see at once.
func (in *inlet) fill(need int) error {
	if in.err != nil {
		return in.err
	}
	in.room(need)
	if in.rc == nil {
		return in.fillPlain()
	}
	if err := in.rc.Read(in.try); err != nil {
		return err // a deadline or a local close: not sticky
	}
	return in.err
}

// poll is fill without waiting; it reports whether anything arrived.
func (in *inlet) poll() (bool, error) {
	if in.err != nil || in.rc == nil {
		return false, in.err
	}
	before := in.buffered()
	in.room(1)
	if err := in.rc.Read(in.once); err != nil {
		return false, err
	}
	return in.buffered() > before, in.err
}

func (in *inlet) tryRead(fd uintptr) bool {
	if in.buf == nil {
		in.buf = in.bufs.get(in.class)
		in.r, in.w = in.head, in.head
	}
	p := in.buf.b[in.w:in.limit()]
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if in.r == in.w {
				in.drop()
			}
			return false
		case err != nil:
			in.err = os.NewSyscallError("read", err)
		case n == 0:
			in.err = io.EOF
		default:
			in.w += n
			in.adapt(n, len(p))
			return true
		}
		if in.r == in.w {
			in.drop()
		}
		return true
	}
}

// adapt follows the traffic: a full read asks for more next time, a nearly
// empty one for less.
func (in *inlet) adapt(n, room int) {
	switch {
	case n == room:
		in.class = min(in.class+1, classLarge)
	case in.class > classSmall && n < classSize(in.class-1)/2:
		in.class--
	}
}

// fillPlain serves connections without a descriptor (net.Pipe).
func (in *inlet) fillPlain() error {
	if in.buf == nil {
		in.buf = in.bufs.get(in.class)
		in.r, in.w = in.head, in.head
	}
	n, err := in.conn.Read(in.buf.b[in.w:in.limit()])
	in.w += n
	if in.r == in.w {
		in.drop()
	}
	if n > 0 {
		return nil
	}
	return err
}
