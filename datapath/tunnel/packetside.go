// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxBatch is how many datagrams one write to the tunnel takes at most: the
	// other side can begin while this one goes on.
	maxBatch = 256
	// spillSize holds the rest of the largest datagram there is; IPv6 has
	// larger ones than a frame carries.
	spillSize = 1 << 16
	// readErrors is how many errors in a row end a flow. The kernel reports
	// what ICMP said about earlier datagrams as errors of the next call.
	readErrors = 16
)

// packetSide is a flow's end at the application. It reads every datagram that
// waits straight into the frames of one tunnel write, and holds memory only
// while there are any.
type packetSide struct {
	p    *Packets
	bufs *account

	buf   *buffer // frames, behind room for an OPEN frame
	w     int
	count int    // datagrams in buf
	bytes int    // of their payload
	kept  []byte // a datagram for which buf was too small and there was no larger one
	class int    // of the next buffer: follows the traffic
	err   error
	try   func(fd uintptr) bool
}

func newPacketSide(t *Tunnel, p *Packets) *packetSide {
	d := &packetSide{p: p, bufs: t.bufs}
	d.try = d.tryRead
	return d
}

func (d *packetSide) shut()        { d.p.Finish() }
func (d *packetSide) close()       {} // by whoever made it
func (d *packetSide) abort()       { _ = d.p.Close() }
func (d *packetSide) broken() bool { return false }

func (d *packetSide) deliver(s *stream, b []byte) error {
	d.p.write(b)
	s.received.Add(int64(len(b)))
	return nil
}

func (d *packetSide) drop() {
	d.bufs.put(d.buf)
	d.buf, d.w, d.count, d.bytes, d.kept = nil, 0, 0, 0, nil
}

func (d *packetSide) pump(s *stream) error {
	if s.t.opener && !d.p.waiting() {
		if err := s.sendOpen(); err != nil {
			return err
		}
	}
	for {
		handed, read, end, err := d.p.awake()
		if err != nil {
			return d.failed(s)
		}
		for _, b := range handed {
			if !d.fits(len(b)) {
				if more, err := d.flush(s); err != nil || !more {
					return err
				}
			}
			d.add(b)
		}
		if more, err := d.flush(s); err != nil || !more {
			return err
		}
		if end {
			return d.last(s, read)
		}
		if !read {
			<-d.p.moved
			continue
		}
		if more, err := d.pumpSocket(s); err != nil || !more {
			return err
		}
	}
}

// pumpSocket carries datagrams of the socket until there is something else to
// do, or, with more false, until its end.
func (d *packetSide) pumpSocket(s *stream) (more bool, err error) {
	for {
		err := d.p.rc.Read(d.try)
		if more, err := d.flush(s); err != nil || !more {
			return false, err
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true, nil
		case err != nil || d.err != nil:
			return false, d.failed(s)
		}
	}
}

// failed ends the flow because its socket has.
func (d *packetSide) failed(s *stream) error {
	s.set(Result{Reason: ReasonReset})
	d.abort()
	return s.reset(ReasonReset)
}

// last carries what the socket still has, without waiting for more, and ends
// the direction.
func (d *packetSide) last(s *stream, read bool) error {
	if read {
		_ = d.p.rc.Read(func(fd uintptr) bool { d.tryRead(fd); return true })
	}
	for d.count > 0 {
		if more, err := d.flush(s); err != nil || !more {
			return err
		}
	}
	return s.sendFin()
}

// flush sends the frames in the buffer as one write and gives it back; more
// is false when the other side wants no more.
func (d *packetSide) flush(s *stream) (more bool, err error) {
	if d.count == 0 {
		d.drop()
		return !s.over(), nil
	}
	s.t.wmu.Lock()
	defer s.t.wmu.Unlock()
	if !s.may(typeDgram) {
		return false, nil
	}
	prefix := s.takePrefix()
	from := maxOpen - len(prefix)
	copy(d.buf.b[from:], prefix)
	err = s.t.write(d.buf.b[from:d.w])
	d.p.counts.sent.Add(uint64(d.count))
	s.sent.Add(int64(d.bytes))
	kept := d.kept
	d.drop()
	if kept != nil {
		d.add(kept)
	}
	return err == nil, err
}

// fits reports whether a datagram of n bytes can be added to the buffer.
func (d *packetSide) fits(n int) bool {
	return d.buf == nil || d.count < maxBatch && d.w+headerLen+n <= len(d.buf.b)
}

// add frames a copy of b, which is lost where the budget has no buffer for it.
func (d *packetSide) add(b []byte) {
	if d.buf == nil {
		d.take(max(d.class, classFor(len(b))))
	}
	if d.w+headerLen+len(b) > len(d.buf.b) {
		d.p.counts.unsent.Add(1)
		return
	}
	copy(d.buf.b[d.w+headerLen:], b)
	d.frame(len(b))
}

func (d *packetSide) take(class int) {
	d.buf = d.bufs.get(class)
	d.w = maxOpen
}

// frame completes the frame of n bytes whose payload lies behind its header.
func (d *packetSide) frame(n int) {
	putHeader(d.buf.b[d.w:], typeDgram, n)
	d.w += headerLen + n
	d.count++
	d.bytes += n
}

// tryRead reads datagrams until the socket has none or the buffer is full.
func (d *packetSide) tryRead(fd uintptr) bool {
	if d.buf == nil {
		d.take(d.class)
	}
	var spill *buffer
	defer func() { d.bufs.put(spill) }()
	for failed := 0; d.kept == nil && d.room(); {
		tail := d.buf.b[d.w+headerLen:]
		if spill == nil && len(tail) < spillSize {
			spill = d.bufs.Buffers.get(classLarge)
		}
		n, err := recvInto(int(fd), tail, spill)
		switch {
		case err == syscall.EAGAIN:
			d.adapt(false)
			if d.count == 0 {
				d.drop()
			}
			return d.count > 0
		case err != nil:
			if failed++; failed == readErrors {
				d.err = os.NewSyscallError("recvmsg", err)
				return true
			}
			continue
		case n > MaxDatagram:
			d.p.counts.tooBig.Add(1)
			continue
		case n > len(tail) && !d.grow(spill.b[:n-len(tail)]):
			d.keep(tail, spill.b[:n-len(tail)])
			continue
		}
		failed = 0
		d.frame(n)
	}
	d.adapt(true)
	return true
}

// room reports whether another datagram may be read: one of any size into an
// empty buffer, and else one that will fit, if need be after a move to the
// largest class.
func (d *packetSide) room() bool {
	if d.count == maxBatch {
		return false
	}
	free := len(d.buf.b) - d.w - headerLen
	if d.buf.class == classLarge {
		return free >= spillSize
	}
	return free > 0
}

// grow moves the buffer, filled to its end, into the largest class and adds
// the rest of the datagram read last, if the budget allows.
func (d *packetSide) grow(rest []byte) bool {
	larger := d.bufs.take(classLarge)
	if larger == nil {
		return false
	}
	n := copy(larger.b, d.buf.b)
	copy(larger.b[n:], rest)
	d.bufs.put(d.buf)
	d.buf = larger
	return true
}

// keep is for the datagram read last where grow could not: it goes next, if a
// small buffer holds it.
func (d *packetSide) keep(head, rest []byte) {
	if maxOpen+headerLen+len(head)+len(rest) > classSize(classSmall)+slack {
		d.p.counts.unsent.Add(1)
		return
	}
	d.kept = slices.Concat(head, rest)
}

// adapt follows the traffic: full buffers ask for larger ones, small batches
// for smaller ones.
func (d *packetSide) adapt(full bool) {
	switch {
	case full && d.class < classLarge:
		d.class++
	case !full && d.class > classSmall && d.w < classSize(d.class-1)/2:
		d.class--
	}
}

// recvInto reads one datagram into tail and, what does not fit, spill.
func recvInto(fd int, tail []byte, spill *buffer) (int, error) {
	for {
		var n int
		var err error
		if spill == nil {
			n, err = unix.Read(fd, tail)
		} else {
			n, err = unix.Readv(fd, [][]byte{tail, spill.b[:spillSize]})
		}
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func sendTo(fd int, b []byte) error {
	for {
		_, err := unix.Write(fd, b)
		if err != syscall.EINTR {
			return err
		}
	}
}

// socketDrops is how many datagrams the kernel dropped because the socket's
// queue was full (SO_MEMINFO).
func socketDrops(fd int) (uint32, error) {
	const drops, fields = 8, 9 // SK_MEMINFO_DROPS, SK_MEMINFO_VARS
	var info [fields]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt", errno)
	}
	return info[drops], nil
}
