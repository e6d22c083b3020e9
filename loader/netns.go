// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netNS is an open network namespace.
type netNS struct {
	*os.File
	inode uint64
}

// currentNS opens the calling thread's namespace.
func currentNS() (*netNS, error) { return openNS("/proc/thread-self/ns/net") }

func openNS(path string) (*netNS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("identifying the network namespace %s: %w", path, err)
	}
	return &netNS{f, st.Ino}, nil
}

// do runs fn on a thread inside the namespace. A thread that cannot return
// stays locked to its goroutine and ends with it.
func (ns *netNS) do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		origin, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("opening the thread's network namespace: %w", err)
			return
		}
		defer origin.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		err = fn()
		if unix.Setns(int(origin.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (ns *netNS) netlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return h, nil
}

// subscribe opens a netlink socket in the namespace that hears the groups.
func (ns *netNS) subscribe(protocol int, groups ...uint) (*nl.NetlinkSocket, error) {
	s, err := nl.SubscribeAt(netns.NsHandle(ns.Fd()), netns.None(), protocol, groups...)
	if err != nil {
		return nil, fmt.Errorf("subscribing to netlink: %w", err)
	}
	return s, nil
}

// cookie is the kernel's number of the namespace, never used twice.
func (ns *netNS) cookie() (uint64, error) {
	var cookie uint64
	err := ns.do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading the network namespace's cookie: %w", err)
	}
	return cookie, nil
}
