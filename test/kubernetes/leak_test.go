// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/thread"
)

// leaks are the packets with a pod's address that a node's uplink carried.
// Between nodes there must be none: all that pods say to each other is inside
// the nodes' own connections.
type leaks struct {
	mu    sync.Mutex
	seen  []string
	total int
}

const leakExamples = 5

// watchLeaks looks at a node's uplink until the test ends, or stop is called.
func watchLeaks(t *testing.T, s *Site, n *stack.Node) (l *leaks, stop func()) {
	t.Helper()
	var pods []netip.Prefix
	for _, node := range s.Nodes {
		pods = append(pods, node.PodCIDRs()...)
	}
	l = &leaks{}
	fd := make(chan int)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	thread.Go(func() {
		defer close(done)
		socket, err := packetSocket(n)
		if err != nil {
			failed <- err
			return
		}
		fd <- socket
		defer unix.Close(socket)
		l.read(ctx, socket, pods)
	})
	select {
	case err := <-failed:
		t.Fatal(err)
	case <-fd:
	}
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return l, stop
}

// packetSocket sees all that the uplink carries. It moves its thread for good.
func packetSocket(n *stack.Node) (int, error) {
	space, err := netns.GetFromPid(n.Pid())
	if err != nil {
		return 0, err
	}
	defer space.Close()
	if err := unix.Setns(int(space), unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("entering the network of %s: %w", n.Name(), err)
	}
	link, err := net.InterfaceByName(stack.Uplink)
	if err != nil {
		return 0, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
	)
}

func (l *leaks) read(ctx context.Context, fd int, pods []netip.Prefix) {
	frame := make([]byte, 256)
	for ctx.Err() == nil {
		n, err := unix.Read(fd, frame)
		if err != nil {
			continue // nothing within the timeout
		}
		src, dst := addresses(frame[:n])
		for _, p := range pods {
			if p.Contains(src) || p.Contains(dst) {
				l.add(fmt.Sprintf("%s %s to %s", time.Now().Format(time.TimeOnly), src, dst))
				break
			}
		}
	}
}

func (l *leaks) add(packet string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total++; len(l.seen) < leakExamples {
		l.seen = append(l.seen, packet)
	}
}

// found counts them and shows some.
func (l *leaks) found() (int, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, l.seen
}

// addresses of an Ethernet frame with IP; invalid ones of any other.
func addresses(frame []byte) (src, dst netip.Addr) {
	const header, at4, end4, at6, end6 = 14, 12, 20, 8, 40
	if len(frame) < header {
		return
	}
	packet := frame[header:]
	switch {
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && len(packet) >= end4:
		return netip.AddrFrom4([4]byte(packet[at4:])), netip.AddrFrom4([4]byte(packet[at4+4:]))
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && len(packet) >= end6:
		return netip.AddrFrom16([16]byte(packet[at6:])), netip.AddrFrom16([16]byte(packet[at6+16:]))
	}
	return
}
