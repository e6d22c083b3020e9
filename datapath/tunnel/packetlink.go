// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// PacketLink joins a flow's application to a connected UDP socket of this
// machine, without a tunnel between them. What one side cannot take at once is
// dropped, as in a tunnel. Moved, Abort and End may be called at any time.
type PacketLink struct {
	app  *Packets
	far  *net.UDPConn
	rc   syscall.RawConn
	bufs *Buffers

	sent, received atomic.Int64

	mu   sync.Mutex
	over bool
	res  Result
}

// LinkPackets joins app to far, which the link closes. Nothing moves before Run.
func LinkPackets(app *Packets, far *net.UDPConn, bufs *Buffers) (*PacketLink, error) {
	rc, err := far.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &PacketLink{app: app, far: far, rc: rc, bufs: bufs}, nil
}

// Run moves datagrams until the application's Finish, its Close, an error that
// lasts, or End. app stays open where it ended in order.
func (l *PacketLink) Run() Result {
	var down sync.WaitGroup
	down.Go(l.down)
	l.up()
	down.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	res := l.res
	res.Sent, res.Received = l.sent.Load(), l.received.Load()
	return res
}

// End closes both sides. The first reason counts.
func (l *PacketLink) End(e Ending) { l.end(Result{Reason: e.Reason, Why: e.Why}) }

// Abort is End with nothing more to say.
func (l *PacketLink) Abort(r Reason) { l.end(Result{Reason: r}) }

// Moved counts the bytes that have passed, both ways.
func (l *PacketLink) Moved() int64 { return l.sent.Load() + l.received.Load() }

func (l *PacketLink) end(r Result) {
	l.mu.Lock()
	if !l.over {
		l.over, l.res = true, r
	}
	l.mu.Unlock()
	_ = l.far.Close()
	if r.Reason != ReasonNone {
		_ = l.app.Close()
	}
}

// up carries what the application sends.
func (l *PacketLink) up() {
	for {
		handed, read, end, err := l.app.awake()
		if err != nil {
			l.end(Result{Reason: ReasonReset})
			return
		}
		for _, b := range handed {
			l.send(b)
		}
		switch {
		case end:
			if read {
				_ = l.app.rc.Read(func(fd uintptr) bool { _ = l.each(fd, l.send); return true })
			}
			l.end(Result{})
			return
		case !read:
			<-l.app.moved
		default:
			if !errors.Is(l.wait(l.app.rc, l.send), os.ErrDeadlineExceeded) {
				l.end(Result{Reason: ReasonReset})
				return
			}
		}
	}
}

// down carries what the other end sends.
func (l *PacketLink) down() {
	_ = l.wait(l.rc, func(b []byte) {
		l.app.write(b)
		l.received.Add(int64(len(b)))
	})
	l.end(Result{Reason: ReasonConnectionRefused}) // the socket failed, unless the flow had ended
}

// wait gives every datagram of a socket to take, until the socket fails or its
// reader is woken. It holds no memory while none comes.
func (l *PacketLink) wait(rc syscall.RawConn, take func([]byte)) error {
	var failed error
	err := rc.Read(func(fd uintptr) bool {
		failed = l.each(fd, take)
		return failed != nil
	})
	return errors.Join(err, failed)
}

// each takes what waits. The kernel reports what ICMP said about earlier
// datagrams as an error of a read.
func (l *PacketLink) each(fd uintptr, take func([]byte)) error {
	buf := l.bufs.get(classLarge)
	defer l.bufs.put(buf)
	for failed := 0; ; {
		n, err := recvInto(int(fd), buf.b, nil)
		switch {
		case err == syscall.EAGAIN:
			return nil
		case err != nil:
			if failed++; failed == readErrors {
				return os.NewSyscallError("recvmsg", err)
			}
		default:
			failed = 0
			take(buf.b[:n])
		}
	}
}

// send gives one datagram to the other end.
func (l *PacketLink) send(b []byte) {
	var err error
	werr := l.rc.Write(func(fd uintptr) bool {
		for range 2 {
			// A pending error of an earlier datagram is returned instead of
			// sending this one, once.
			if err = sendTo(int(fd), b); err != syscall.ECONNREFUSED {
				break
			}
		}
		return true // a full queue drops
	})
	if werr != nil || err != nil {
		l.app.counts.unsent.Add(1)
		return
	}
	l.app.counts.sent.Add(1)
	l.sent.Add(int64(len(b)))
}
