// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// checkPeer refuses an end of the connection that is not of the user uid. The
// kernel keeps who listened and who connected (SO_PEERCRED, unix(7)).
func checkPeer(conn net.Conn, uid uint32) error {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the peer's user: %T is no unix socket", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return fmt.Errorf("the peer's user: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("the peer's user: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("the peer's user: %w", credErr)
	}
	if cred.Uid != uid {
		return fmt.Errorf("the peer is process %d of user %d, not of user %d", cred.Pid, cred.Uid, uid)
	}
	return nil
}
