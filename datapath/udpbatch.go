// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call takes out of a queue.
	batchSize = 32
	maxUDP    = 1 << 16
	oobSize   = 64 // for one control message, the original destination
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// batch is the memory that datagrams are received into. It lives as long as its
// socket; the kernel touches no more of it than has arrived.
type batch struct {
	msgs  [batchSize]mmsghdr
	iov   [batchSize]unix.Iovec
	from  [batchSize]unix.RawSockaddrInet6 // the larger one
	oob   [batchSize][oobSize]byte
	bytes []byte
	n     int // taken
}

func newBatch() *batch {
	b := &batch{bytes: make([]byte, batchSize*maxUDP)}
	for i := range b.msgs {
		b.iov[i].Base = &b.bytes[i*maxUDP]
		b.iov[i].SetLen(maxUDP)
		h := &b.msgs[i].hdr
		h.Iov = &b.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		h.Control = &b.oob[i][0]
	}
	return b
}

// take receives what waits in the queue of a socket that does not block.
func (b *batch) take(fd uintptr) error {
	for i := range b.msgs {
		h := &b.msgs[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(b.from[i]))
		h.SetControllen(oobSize)
	}
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.n = int(n)
			return nil
		case unix.EINTR:
			continue
		}
		b.n = 0
		return errno
	}
}

func (b *batch) payload(i int) []byte {
	return b.bytes[i*maxUDP:][:min(b.msgs[i].n, maxUDP)]
}

func (b *batch) control(i int) []byte {
	return b.oob[i][:min(int(b.msgs[i].hdr.Controllen), oobSize)]
}

// source is who sent it; the port is in network order.
func (b *batch) source(i int) netip.AddrPort {
	from := &b.from[i]
	switch from.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port(&v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), port(&from.Port))
	}
	return netip.AddrPort{}
}

func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
