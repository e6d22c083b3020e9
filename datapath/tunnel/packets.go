// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What Hand keeps until the tunnel is there.
const (
	maxHanded      = 64
	maxHandedBytes = 256 << 10
)

// Packets is the application's side of a flow of datagrams: a connected UDP
// socket, and a short queue of datagrams that came on another way, which go
// first. Both are bounded, the socket's queue by its receive buffer; what does
// not fit is dropped, newest first, and counted: a datagram is never delayed
// to save it. Safe for concurrent use.
type Packets struct {
	conn *net.UDPConn // nil: everything is handed
	rc   syscall.RawConn
	send func(p []byte) error // instead of the socket's

	mu       sync.Mutex
	moved    chan struct{} // something below changed; holds one
	handed   [][]byte
	size     int  // bytes in handed
	settled  bool // the socket is read
	finished bool
	closed   bool
	lost     uint32 // by the socket's queue, when it was closed

	counts struct{ sent, received, unsent, unreceived, tooBig atomic.Uint64 }
}

// PacketCounts counts datagrams of a flow, as its application sees it.
type PacketCounts struct {
	Sent       uint64 // into the tunnel
	Received   uint64 // given to the application
	Unsent     uint64 // dropped: the application was faster than the tunnel
	Unreceived uint64 // dropped: the application's link did not take it
	TooBig     uint64 // dropped: larger than MaxDatagram
}

// NewPackets takes a connected socket. It is read only after Settle: until
// then, datagrams that came before those it gets may still be handed over.
func NewPackets(conn *net.UDPConn) (*Packets, error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Packets{conn: conn, rc: rc, moved: make(chan struct{}, 1)}, nil
}

// HandedPackets has no socket: the application's datagrams are all handed
// over, and send sends to it.
func HandedPackets(send func(p []byte) error) *Packets {
	return &Packets{send: send, moved: make(chan struct{}, 1)}
}

// Hand gives a datagram of the application to the flow, before all that the
// socket gets, and keeps no reference to p. It reports whether there was room.
func (p *Packets) Hand(b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(b) > MaxDatagram:
		p.counts.tooBig.Add(1)
		return false
	case p.closed || len(p.handed) == maxHanded || p.size+len(b) > maxHandedBytes:
		p.counts.unsent.Add(1)
		return false
	}
	p.handed = append(p.handed, slices.Clone(b))
	p.size += len(b)
	p.wake()
	return true
}

// Settle says that nothing which came before the socket's datagrams will be
// handed over any more.
func (p *Packets) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = true
	p.wake()
}

// Finish ends the flow in order once what waits has been carried.
func (p *Packets) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	p.wake()
}

// Again undoes Finish and reports true if datagrams of the application have
// come since the flow ended: it may be carried again then.
func (p *Packets) Again() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.waits() {
		return false
	}
	p.finished = false
	return true
}

func (p *Packets) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits()
}

// waits reports whether a datagram of the application waits. Callers hold mu.
func (p *Packets) waits() bool {
	return len(p.handed) > 0 || p.rc != nil && pollNow(p.rc)&unix.POLLIN != 0
}

// Close closes the socket. Nothing more passes.
func (p *Packets) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.lost, p.closed = p.overflow(), true
	p.counts.unsent.Add(uint64(len(p.handed)))
	p.handed, p.size = nil, 0
	p.wake()
	if p.conn == nil {
		return nil
	}
	return p.conn.Close()
}

// Counts returns what the flow has carried and lost so far.
func (p *Packets) Counts() PacketCounts {
	p.mu.Lock()
	lost := p.lost
	if !p.closed {
		lost = p.overflow()
	}
	p.mu.Unlock()
	c := &p.counts
	return PacketCounts{
		Sent: c.sent.Load(), Received: c.received.Load(), Unsent: c.unsent.Load() + uint64(lost),
		Unreceived: c.unreceived.Load(), TooBig: c.tooBig.Load(),
	}
}

// Moved counts the datagrams that have passed, in either direction.
func (p *Packets) Moved() (sent, received uint64) {
	return p.counts.sent.Load(), p.counts.received.Load()
}

// wake has the reader look again. Callers hold mu.
func (p *Packets) wake() {
	select {
	case p.moved <- struct{}{}:
	default:
	}
	if p.conn != nil && p.settled {
		_ = p.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// awake is how the reader acknowledges wake. It returns what was handed over,
// whether the socket is to be read, and whether the flow ends after that.
func (p *Packets) awake() (handed [][]byte, read, end bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, false, net.ErrClosed
	}
	handed, p.handed, p.size = p.handed, nil, 0
	read = p.conn != nil && p.settled
	if read {
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	return handed, read, p.finished, nil
}

// overflow asks the kernel what the socket's queue has dropped. Callers hold mu.
func (p *Packets) overflow() (n uint32) {
	if p.rc == nil {
		return 0
	}
	_ = p.rc.Control(func(fd uintptr) { n, _ = socketDrops(int(fd)) })
	return n
}

// write gives one datagram to the application.
func (p *Packets) write(b []byte) {
	var err error
	if p.send != nil {
		err = p.handOut(b)
	} else {
		err = p.writeSocket(b)
	}
	if err != nil {
		p.counts.unreceived.Add(1)
		return
	}
	p.counts.received.Add(1)
}

// handOut sends one datagram unless the flow was closed, as a socket would: the
// application's address may be another's by then. It waits with no lock held.
func (p *Packets) handOut(b []byte) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	return p.send(b)
}

func (p *Packets) writeSocket(b []byte) error {
	var err error
	rerr := p.rc.Write(func(fd uintptr) bool {
		for range 2 {
			// A pending error of an earlier datagram is returned instead of
			// sending this one, once.
			if err = sendTo(int(fd), b); err != unix.ECONNREFUSED {
				break
			}
		}
		return true // a full queue drops
	})
	return errors.Join(rerr, err)
}
