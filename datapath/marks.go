// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Marks are the firewall marks that the loader was given: Capture is on what
// the kernel took from a pod's own link, and on nothing else; Daemon is on what
// the daemon sends to pods. Both lie within Mask.
type Marks struct{ Capture, Daemon, Mask uint32 }

func (m Marks) check() error {
	if m.Mask == 0 || (m.Capture|m.Daemon)&^m.Mask != 0 {
		return fmt.Errorf("checking the marks: capture %#x and daemon %#x must lie within the mask %#x, which is not 0", m.Capture, m.Daemon, m.Mask)
	}
	return nil
}

// takeCaptured has a socket towards pods take nothing but what the kernel took
// from a pod. Addresses do not tell: anybody on the network can forge them, and
// the kernel asks neither steer nor, for UDP, its routes about a packet that
// fits a connected socket.
func takeCaptured(fd int, m Marks) error {
	if err := m.check(); err != nil {
		return err
	}
	return attachFilter(
		fd,
		bpf.LoadExtension{Num: bpf.ExtMark},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: m.Mask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: m.Capture, SkipFalse: 1},
		bpf.RetConstant{Val: math.MaxUint32}, // all of the packet
		bpf.RetConstant{Val: 0},
	)
}

// deafen has a socket take nothing in.
func deafen(fd int) error {
	return attachFilter(fd, bpf.RetConstant{Val: 0})
}

// attachFilter replaces the socket's filter. Connections inherit that of their
// listener.
func attachFilter(fd int, program ...bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assembling a socket's filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attaching a socket's filter: %w", err)
	}
	return nil
}

// takeCaptured is for sockets that were handed over: the release that made
// them may not have filtered.
func (l *Listeners) takeCaptured(m Marks) error {
	all := []syscall.Conn{}
	for _, ln := range l.Pods {
		all = append(all, ln)
	}
	for _, c := range l.Packets {
		all = append(all, c)
	}
	for _, s := range all {
		raw, err := s.SyscallConn()
		if err != nil {
			return err
		}
		var opErr error
		err = raw.Control(func(fd uintptr) { opErr = takeCaptured(int(fd), m) })
		if err = errors.Join(err, opErr); err != nil {
			return err
		}
	}
	return nil
}
