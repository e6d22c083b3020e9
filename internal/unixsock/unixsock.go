// SPDX-License-Identifier: Apache-2.0

// Package unixsock makes unix sockets that only their owner may use, and keeps
// this invariant: at no moment can another user connect, not even where the
// folder is open to others; and whoever is at the other end is known by the
// kernel's word.
package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Listen makes the socket where only its owner gets, and moves it to its place
// in dir once its mode is right. A socket that a killed process left is
// replaced. Closing the listener leaves the file: by then it may be a
// successor's.
func Listen(dir, name, network string) (*net.UnixListener, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	path := filepath.Join(private, "s")
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(path, 0o600), os.Rename(path, filepath.Join(dir, name))); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// CheckPeer refuses an end of the connection that is not of the user uid. The
// kernel keeps who listened and who connected (SO_PEERCRED, unix(7)).
func CheckPeer(conn net.Conn, uid uint32) error {
	cred, err := peer(conn)
	if err != nil {
		return fmt.Errorf("asking who is at the other end of a unix socket: %w", err)
	}
	if cred.Uid != uid {
		return fmt.Errorf("the other end of the unix socket is process %d of user %d, expected user %d", cred.Pid, cred.Uid, uid)
	}
	return nil
}

func peer(conn net.Conn) (cred *unix.Ucred, err error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("a %T is none", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, inner)
}
