// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stallCheck is how long a write may be blocked before, and between, looks at
// whether the side that the bytes come from has failed.
const stallCheck = 250 * time.Millisecond

var errReset = errors.New("the connection was reset")

var errStalled = errors.New("writing to a side that does not read: the other side has gone")

// pump moves one direction of a link. One goroutine runs it.
type pump struct {
	src, dst    *net.TCPConn
	read, write syscall.RawConn
	back        *pump       // the other direction
	shut        atomic.Bool // dst was told the end of this one
	moved       atomic.Int64
	held        held
	err         error
	armed       time.Time // the write deadline now set
	pull, push  func(fd uintptr) bool
}

func (p *pump) init(pool *Pool, owner string, src, dst *net.TCPConn, back *pump) {
	p.src, p.dst, p.back, p.held.from, p.held.owner = src, dst, back, pool, owner
	p.read, p.err = src.SyscallConn()
	if p.err == nil {
		p.write, p.err = dst.SyscallConn()
	}
	p.pull, p.push = p.tryPull, p.tryPush
}

// run returns nil when the source has finished and the destination was told.
func (p *pump) run() error {
	defer p.held.drop()
	for p.err == nil {
		if err := p.read.Read(p.pull); err != nil {
			return err
		}
		if p.err == nil {
			p.drain()
		}
	}
	if !errors.Is(p.err, io.EOF) {
		return p.err
	}
	p.shut.Store(true)
	_ = p.dst.CloseWrite()
	return nil
}

// tryPull takes what has arrived; false when nothing has.
func (p *pump) tryPull(fd uintptr) bool {
	n, full, err := p.held.pull(int(fd))
	switch {
	case errors.Is(err, unix.EAGAIN):
		p.held.drop() // an idle connection holds nothing
		return false
	case err != nil:
		p.err = os.NewSyscallError("read", err)
	case n == 0 && p.hungUp(fd):
		p.err = errReset // the write to this side has taken the error
	case n == 0:
		p.err = io.EOF
	default:
		p.held.bulk = full // the next one by splice
	}
	return true
}

// drain writes all that is held.
func (p *pump) drain() {
	stale := true // the first expiry may be that of an earlier write's deadline
	for p.held.n > 0 && p.err == nil {
		err := p.write.Write(p.push)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !stale && p.abandoned() {
				p.err = errStalled
				return
			}
			stale = false
			p.arm()
		default:
			p.err = err
		}
	}
}

func (p *pump) tryPush(fd uintptr) bool {
	for p.held.n > 0 {
		n, err := p.held.push(int(fd))
		switch {
		case errors.Is(err, unix.EAGAIN):
			if time.Now().After(p.armed) {
				p.arm()
			}
			return false
		case err != nil:
			p.err = os.NewSyscallError("write", err)
			return true
		}
		p.moved.Add(int64(n))
	}
	return true
}

func (p *pump) arm() {
	p.armed = time.Now().Add(stallCheck)
	_ = p.dst.SetWriteDeadline(p.armed)
}

// abandoned reports whether the source has failed while its bytes wait.
func (p *pump) abandoned() (failed bool) {
	if p.read.Control(func(fd uintptr) { failed = p.hungUp(fd) }) != nil {
		return true
	}
	return failed
}

// hungUp tells a reset from an end of both directions, which looks like a
// hang-up too.
func (p *pump) hungUp(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a descriptor
	if _, err := unix.Poll(poll, 0); err != nil {
		return false
	}
	got := poll[0].Revents
	return got&unix.POLLERR != 0 || got&unix.POLLHUP != 0 && !p.back.shut.Load()
}

// broken waits, after the source has finished, for the link to be over. It
// returns true if the source failed before.
func (p *pump) broken() bool {
	return p.read.Read(p.hungUp) == nil
}
