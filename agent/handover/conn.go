// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/internal/unixsock"
)

// Network of the unix socket: packets keep messages apart, and descriptors
// with the message they belong to.
const Network = "unixpacket"

// errTooLong means that a message was not sent.
var errTooLong = fmt.Errorf("it is longer than %d bytes", maxMessage)

// ErrNobody means that no daemon listens.
var ErrNobody = errors.New("no daemon is there to take over from")

// conn is one end of a hand-over.
type conn struct{ *net.UnixConn }

// connect dials the owner, whose uid must be the given one.
func connect(ctx context.Context, path string, uid uint32) (*conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, Network, path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, err
	}
	return checked(c.(*net.UnixConn), uid)
}

// checked closes c unless the process behind it has the uid.
func checked(c *net.UnixConn, uid uint32) (*conn, error) {
	if err := unixsock.CheckPeer(c, uid); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &conn{c}, nil
}

func (c *conn) send(m message, files ...*os.File) error {
	raw, err := json.Marshal(m)
	if err == nil && len(raw) > maxMessage {
		err = errTooLong
	}
	var rights []byte
	if err == nil && len(files) > 0 {
		rights, err = rightsOf(files)
	}
	if err == nil {
		_, _, err = c.WriteMsgUnix(raw, rights, nil)
	}
	if err != nil {
		return fmt.Errorf("sending %s: %w", m.Op, err)
	}
	return nil
}

// rightsOf does not use File.Fd, which would make the sockets, shared as they
// are, blocking for both processes.
func rightsOf(files []*os.File) ([]byte, error) {
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, fmt.Errorf("passing %s on: %w", f.Name(), err)
		}
	}
	return unix.UnixRights(fds...), nil
}

// receive returns the next message. The files are the caller's.
func (c *conn) receive() (*message, []*os.File, error) {
	raw, oob := make([]byte, maxMessage+1), make([]byte, unix.CmsgSpace(4*maxSockets))
	n, oobn, flags, _, err := c.ReadMsgUnix(raw, oob)
	if err != nil {
		return nil, nil, fmt.Errorf("receiving: %w", err)
	}
	files, err := filesOf(oob[:oobn])
	var m *message
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("receiving: the message is too long or brings too many descriptors")
	default:
		m, err = parse(raw[:n])
	}
	if err == nil && len(files) != len(m.Sockets) {
		err = fmt.Errorf("receiving: %d descriptors for %d sockets", len(files), len(m.Sockets))
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m, files, nil
}

func filesOf(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receiving descriptors: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // another kind of control message
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
