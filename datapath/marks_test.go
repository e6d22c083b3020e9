// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var marked = Marks{Capture: 0x1000, Mask: 0x3000} // constant in all but name

// strangers are marks that packets have which no pod sent, or none at all.
var strangers = []int{0, 0x2000, 0x3000, 0x4000} // constant in all but name

// mark gives what the socket sends from now on a mark, as the kernel would.
func mark(t *testing.T, c syscall.Conn, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, value) }))
	must(t, err)
}

// taken is what the socket takes from "stranger" with each of strangers' marks
// and then from "pod".
func taken(t *testing.T, at, from *net.UDPConn) string {
	t.Helper()
	to := at.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, m := range strangers {
		mark(t, from, m)
		_, err := from.WriteToUDPAddrPort(fmt.Appendf(nil, "stranger %#x", m), to)
		must(t, err)
	}
	mark(t, from, int(marked.Capture)|0x4) // other bits are others' business
	_, err := from.WriteToUDPAddrPort([]byte("pod"), to)
	must(t, err)
	must(t, at.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 100)
	n, err := at.Read(b)
	must(t, err)
	return string(b[:n])
}

func TestUDPSocketsTakeOnlyWhatWasCapturedFromPods(t *testing.T) {
	firsts, err := ListenTransparentUDP(t.Context(), marked)
	must(t, err)
	for i, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		defer firsts[i].Close()
		pod, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		must(t, err)
		defer pod.Close()
		if got := taken(t, firsts[i], pod); got != "pod" {
			t.Errorf("%s: the socket of first datagrams took %q", addr, got)
		}
		peer := pod.LocalAddr().(*net.UDPAddr).AddrPort()
		begun, err := connectUDP(t.Context(), netip.MustParseAddrPort(addr), peer, marked)
		must(t, err)
		defer begun.Close()
		itself, err := dialPodUDP(t.Context(), peer, peer, marked)
		must(t, err)
		defer itself.Close()
		for name, c := range map[string]*net.UDPConn{"that a pod began": begun, "of a pod with itself": itself} {
			if got := taken(t, c, pod); got != "pod" {
				t.Errorf("%s: the socket of a flow %s took %q", addr, name, got)
			}
		}
	}
}

// A socket of a release that did not filter.
func TestSocketsThatWereHandedOverTakeOnlyWhatWasCaptured(t *testing.T) {
	former, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer former.Close()
	must(t, (&Listeners{Packets: []*net.UDPConn{former}}).takeCaptured(marked))
	pod, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer pod.Close()
	if got := taken(t, former, pod); got != "pod" {
		t.Errorf("it took %q", got)
	}
}

func TestTCPSocketsTakeOnlyWhatWasCapturedFromPods(t *testing.T) {
	listeners, err := ListenTransparent(t.Context(), marked)
	must(t, err)
	for _, ln := range listeners {
		defer ln.Close()
		for _, m := range strangers {
			d := net.Dialer{Timeout: 100 * time.Millisecond, Control: func(_, _ string, raw syscall.RawConn) (err error) {
				_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, m) })
				return err
			}}
			if c, err := d.Dial("tcp", ln.Addr().String()); err == nil {
				c.Close()
				t.Errorf("%s: a stranger with mark %#x connected", ln.Addr(), m)
			}
		}
		d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(marked.Capture))
			})
			return err
		}}
		pod, err := d.Dial("tcp", ln.Addr().String())
		must(t, err)
		defer pod.Close()
		accepted, err := ln.AcceptTCP()
		must(t, err)
		defer accepted.Close()
		wantOnlyCaptured(t, accepted, pod.(*net.TCPConn))
	}
}

// An application's answers are captured as what it begins is.
func TestConnectionsToPodsTakeOnlyWhatWasCaptured(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(marked.Capture))
			})
			return err
		}}
		ln, err := lc.Listen(t.Context(), "tcp", addr)
		must(t, err)
		defer ln.Close()
		dst := ln.Addr().(*net.TCPAddr).AddrPort()
		made, err := DialPod(t.Context(), dst, dst, marked, 10*time.Second)
		must(t, err)
		defer made.Close()
		pod, err := ln.Accept()
		must(t, err)
		defer pod.Close()
		wantOnlyCaptured(t, made, pod.(*net.TCPConn))
	}
}

// wantOnlyCaptured sends a segment that fits the connection in all but its
// mark. TCP sends it again, then as the pod's.
func wantOnlyCaptured(t *testing.T, at, pod *net.TCPConn) {
	t.Helper()
	mark(t, pod, 0)
	_, err := pod.Write([]byte("x"))
	must(t, err)
	b := make([]byte, 1)
	must(t, at.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if _, err := at.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: a segment that was not captured is taken (%v)", at.LocalAddr(), err)
	}
	mark(t, pod, int(marked.Capture))
	must(t, at.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := at.Read(b); err != nil {
		t.Errorf("%s: %v", at.LocalAddr(), err)
	}
}

func TestSocketsTowardsPodsAreRefusedWithoutMarks(t *testing.T) {
	for name, m := range map[string]Marks{"none": {}, "capture outside the mask": {Capture: 0x4000, Mask: 0x3000}, "daemon outside the mask": {Capture: 0x1000, Daemon: 0x4000, Mask: 0x3000}} {
		if _, err := ListenTransparent(t.Context(), m); err == nil {
			t.Errorf("%s: a listener", name)
		}
		if _, err := ListenTransparentUDP(t.Context(), m); err == nil {
			t.Errorf("%s: a UDP socket", name)
		}
	}
}
