// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// fairRate is the well-behaved pod's requests per second.
	fairRate = 1000
	// floodRate is five times what the kernel lets a pod open.
	floodRate   = 20_000
	slowReaders = 256
	pourPort    = 7100
)

// flood begins connections and takes them back without waiting for an answer,
// as fast as floodRate.
func flood(ctx context.Context, a *arena, ready func()) error {
	to := &unix.SockaddrInet4{Port: oncePort, Addr: a.prey.Addr4.As4()}
	const perTick = floodRate / 1000
	return a.hostile.Do(func() error {
		ready()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			for range perTick {
				if err := knock(to); err != nil {
					return fmt.Errorf("flooding: %w", err)
				}
			}
		}
	})
}

// knock sends the first packet of a connection and resets what comes of it.
func knock(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	switch err := unix.Connect(fd, to); {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EADDRNOTAVAIL):
		return nil // refused or not, it was sent
	default:
		return err
	}
}

// pour sends without end.
func pour(c net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}

// readSlowly holds connections on which it is sent more than it ever reads.
func readSlowly(ctx context.Context, a *arena, ready func()) error {
	dial := dialFrom(a.hostile, netip.AddrPortFrom(a.prey.Addr4, pourPort))
	conns := make([]net.Conn, slowReaders)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range conns {
		g.Go(func() (err error) {
			conns[i], err = dial(ctx)
			return err
		})
	}
	err := g.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err != nil {
		return fmt.Errorf("opening slow readers: %w", err)
	}
	ready()
	buf := make([]byte, 1<<10)
	tick := time.NewTicker(time.Second / slowReaders) // each reads once a second
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		c := conns[i%len(conns)]
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := c.Read(buf); err != nil && ctx.Err() == nil {
			return fmt.Errorf("a slow reader's connection: %w", err)
		}
	}
}
