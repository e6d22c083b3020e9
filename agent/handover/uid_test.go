// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/thread"
)

// as runs fn on a thread with another effective uid.
func as(t *testing.T, uid int, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	thread.Go(func() {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		done <- fn()
	})
	return <-done
}

// The socket's mode keeps others out; if it did not, their uid would.
func TestProcessesOfOtherUsersAreTurnedAway(t *testing.T) {
	privileged.Require(t)
	dir, err := os.MkdirTemp("", "c8s-handover-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := newOwner(t, func(o *owner) { o.path = dir + "/s" })
	for path, mode := range map[string]os.FileMode{dir: 0o755, o.path: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := as(t, 65534, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: o.path}) }); err != nil {
		t.Fatal(err)
	}
	limit := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(fd, make([]byte, 100)); n > 0 || err == unix.EAGAIN {
		t.Errorf("it was not turned away: %d bytes, %v", n, err)
	}
	if o.srv.Busy() || o.noted() != "" {
		t.Errorf("the owner talks to it: %q", o.noted())
	}
}

// A successor does not take sockets from somebody else's process either.
func TestOwnerOfAnotherUserIsNotBelieved(t *testing.T) {
	o := newOwner(t)
	if c, err := connect(t.Context(), o.path, uint32(os.Geteuid())+1); err == nil {
		c.Close()
		t.Error("it was believed")
	}
}
