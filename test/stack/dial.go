// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dial connects from the node's network to an address, which must be one of
// IP. It fits what HTTP and Kubernetes clients take for dialling, so that a
// test can be a client on the node.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", n.cfg.Name, err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		conn, err := n.dialHere(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialHere moves its thread for good. An IP address needs no other thread to
// look it up.
func (n *Node) dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	space, err := netns.GetFromPid(n.Pid())
	if err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", n.cfg.Name, err)
	}
	defer space.Close()
	if err := unix.Setns(int(space), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("dialling from %s: entering its network: %w", n.cfg.Name, err)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}
