// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/thread"
)

// Dial connects from the node's network to an address, which must be one of
// IP. It fits what HTTP and Kubernetes clients take for dialling, so that a
// test can be a client on the node.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", n.cfg.Name, err)
	}
	return inNetwork(n, func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, address) })
}

// Listen listens in the node's network at an address, which must be one of IP.
func (n *Node) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", n.cfg.Name, err)
	}
	return inNetwork(n, func() (net.Listener, error) { return new(net.ListenConfig).Listen(ctx, network, address) })
}

// ListenPacket is Listen for datagrams.
func (n *Node) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", n.cfg.Name, err)
	}
	return inNetwork(n, func() (net.PacketConn, error) { return new(net.ListenConfig).ListenPacket(ctx, network, address) })
}

// inNetwork makes a socket in the node's network. It uses a thread that it
// moves for good; an IP address needs no other thread to look it up.
func inNetwork[S any](n *Node, open func() (S, error)) (S, error) {
	type result struct {
		socket S
		err    error
	}
	done := make(chan result, 1)
	thread.Go(func() {
		var r result
		if r.err = n.enterNetwork(); r.err == nil {
			r.socket, r.err = open()
		}
		done <- r
	})
	r := <-done
	return r.socket, r.err
}

func (n *Node) enterNetwork() error {
	space, err := netns.GetFromPid(n.Pid())
	if err != nil {
		return fmt.Errorf("opening the network of %s: %w", n.cfg.Name, err)
	}
	defer space.Close()
	if err := unix.Setns(int(space), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network of %s: %w", n.cfg.Name, err)
	}
	return nil
}
