// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// threadNS is the namespace of the calling thread. /proc/self would name the
// main thread's instead.
const threadNS = "/proc/thread-self/ns/net"

// NS is one network namespace, kept alive by a bind mount in the lab's folder.
type NS struct {
	lab    *Lab
	name   string
	path   string
	inode  uint64
	handle *netlink.Handle

	mu      sync.RWMutex
	file    *os.File // nil once closed
	sockets []io.Closer

	closeOnce sync.Once
	closeErr  error
}

// newNS makes a namespace with its loopback device up. The lab's lock is held
// throughout, so that Close either sees the namespace or prevents it.
func (l *Lab) newNS(name string) (*NS, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("making namespace %s: %w", name, ErrClosed)
	}
	ns := &NS{lab: l, name: name, path: filepath.Join(l.dir.path, "ns", name)}
	if err := ns.create(); err != nil {
		return nil, fmt.Errorf("making namespace %s: %w", name, errors.Join(err, ns.close()))
	}
	l.spaces = append(l.spaces, ns)
	return ns, nil
}

func (ns *NS) create() error {
	if err := os.WriteFile(ns.path, nil, 0o600); err != nil {
		return fmt.Errorf("making its mount point: %w", err)
	}
	err := onForeignThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unsharing the network: %w", err)
		}
		return nil
	}, func() error {
		if err := unix.Mount(threadNS, ns.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting it at %s: %w", ns.path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f, err := os.Open(ns.path)
	if err != nil {
		return fmt.Errorf("opening it: %w", err)
	}
	ns.file = f
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("reading its inode: %w", err)
	}
	ns.inode = st.Ino
	ns.handle, err = netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink in it: %w", err)
	}
	lo, err := ns.handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := ns.handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	return nil
}

// onForeignThread locks the calling goroutine to its thread, moves the thread
// by enter, runs fn and moves it back. A thread that cannot return must never
// run other goroutines, hence the panic.
func onForeignThread(enter, fn func() error) error {
	runtime.LockOSThread()
	origin, err := os.Open(threadNS)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening the thread's namespace: %w", err)
	}
	// Deferred, so that a panic or runtime.Goexit (t.FailNow) in fn returns too.
	defer func() {
		err := unix.Setns(int(origin.Fd()), unix.CLONE_NEWNET)
		_ = origin.Close()
		if err != nil {
			panic(fmt.Sprintf("lab: returning a thread to its network namespace: %v", err))
		}
		runtime.UnlockOSThread()
	}()
	if err := enter(); err != nil {
		return err
	}
	return fn()
}

// Name is the namespace's name, unique in its lab.
func (ns *NS) Name() string { return ns.name }

// Path is a file that setns(2), nsenter --net= and other processes can open
// as long as the lab lives.
func (ns *NS) Path() string { return ns.path }

// Inode identifies the namespace as /proc/<pid>/ns/net shows it.
func (ns *NS) Inode() uint64 { return ns.inode }

// Netlink returns a route netlink handle bound to the namespace. It is safe
// for concurrent use and owned by the namespace.
func (ns *NS) Netlink() *netlink.Handle { return ns.handle }

// Do runs fn on the calling goroutine with its thread inside the namespace.
// Sockets and files opened by fn itself belong to the namespace; goroutines
// started by fn do not run in it. Calls may nest.
func (ns *NS) Do(fn func() error) error {
	return onForeignThread(ns.enter, fn)
}

// enter moves the calling, locked thread into the namespace.
func (ns *NS) enter() error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.file == nil {
		return fmt.Errorf("entering namespace %s: %w", ns.name, ErrClosed)
	}
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering namespace %s: %w", ns.name, err)
	}
	return nil
}

// Sysctl writes a net.* sysctl of the namespace.
func (ns *NS) Sysctl(key, value string) error {
	return ns.Do(func() error {
		if err := os.WriteFile(sysctlPath(key), []byte(value), 0); err != nil {
			return fmt.Errorf("setting sysctl %s=%s in namespace %s: %w (is /proc/sys read-only?)", key, value, ns.name, err)
		}
		return nil
	})
}

// listenConfig is that of the lab's listeners: no multipath TCP, which Go
// offers by default and which neither SOCKMAPs nor plain captures understand.
func listenConfig() *net.ListenConfig {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(false)
	return lc
}

// Listen listens in the namespace. The address must be a literal; name
// resolution would happen on another thread. The listener is closed with the
// namespace at the latest.
func (ns *NS) Listen(network, addr string) (net.Listener, error) {
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = listenConfig().Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s in namespace %s: %w", addr, ns.name, err)
	}
	return ln, ns.keep(ln)
}

// ListenPacket is Listen for datagram sockets.
func (ns *NS) ListenPacket(network, addr string) (net.PacketConn, error) {
	var pc net.PacketConn
	err := ns.Do(func() (err error) {
		pc, err = listenConfig().ListenPacket(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening on %s in namespace %s: %w", addr, ns.name, err)
	}
	return pc, ns.keep(pc)
}

// Dial connects from within the namespace; it fits http.Transport.DialContext.
// The address must be a literal. The connection is the caller's to close: an
// open one keeps an otherwise empty namespace alive.
func (ns *NS) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	return ns.DialWith(ctx, &d, network, addr)
}

// DialWith is Dial with a dialer of the caller, for local addresses, marks
// and time limits.
func (ns *NS) DialWith(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dialling %s from namespace %s: %w", addr, ns.name, err)
	}
	return c, nil
}

// keep makes a socket end with the namespace.
func (ns *NS) keep(c io.Closer) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		_ = c.Close()
		return fmt.Errorf("opening a socket in namespace %s: %w", ns.name, ErrClosed)
	}
	ns.sockets = append(ns.sockets, c)
	return nil
}

// close removes the namespace's links at once (the kernel would do it later
// and only after the last socket), its sockets, mount and file.
func (ns *NS) close() error {
	ns.closeOnce.Do(func() { ns.closeErr = ns.remove() })
	return ns.closeErr
}

func (ns *NS) remove() error {
	ns.mu.Lock()
	file, sockets := ns.file, ns.sockets
	ns.file, ns.sockets = nil, nil
	ns.mu.Unlock()
	for _, s := range sockets {
		_ = s.Close() // the owner may have closed it already
	}
	var errs []error
	if ns.handle != nil {
		errs = append(errs, deleteLinks(ns.handle))
		ns.handle.Close()
	}
	if file != nil {
		errs = append(errs, file.Close())
	}
	if err := unix.Unmount(ns.path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmounting %s: %w", ns.path, err))
	}
	// Removing the file also detaches copies of the mount in other mount
	// namespaces (Linux 3.19).
	if err := os.Remove(ns.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func deleteLinks(h *netlink.Handle) error {
	links, err := h.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing links: %w", err)
	}
	var errs []error
	for _, link := range links {
		if link.Type() != "veth" && link.Type() != "bridge" {
			continue
		}
		// A veth goes with its peer, so it may be gone by now.
		if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("deleting link %s: %w", link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
