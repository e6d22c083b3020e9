// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// fairRate is the well-behaved pod's requests per second.
	fairRate = 1000
	// floodRate is five times what the kernel lets a pod open.
	floodRate = 20_000
	// readers is how many connections a slow or a greedy one holds.
	readers  = 256
	pourPort = 7100
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
func (a *arena) pour(c net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Write(buf)
		a.poured.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// readGreedily reads as fast as it can on many connections. The node may refuse
// some of them, but not all.
func readGreedily(ctx context.Context, a *arena, ready func()) error {
	return a.readers(ctx, func(conns []net.Conn) error {
		defer context.AfterFunc(ctx, func() { closeAll(conns) })()
		ready()
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
		}
		wg.Wait()
		if ctx.Err() == nil {
			return errors.New("reading greedily: every connection was ended")
		}
		return nil
	})
}

// readSlowly holds connections on which it is sent more than it ever reads. It
// is ready when all that lies in between is full.
func readSlowly(ctx context.Context, a *arena, ready func()) error {
	return a.readers(ctx, func(conns []net.Conn) error {
		tick := time.NewTicker(time.Second / readers) // each reads once a second
		defer tick.Stop()
		buf, was, full := make([]byte, 1<<10), int64(0), false
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			c := conns[i%readers]
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			_, _ = c.Read(buf) // whether something comes in time is the far end's affair
			if now := a.poured.Load(); !full && i%readers == readers-1 {
				if full = now-was < readers<<14; full {
					ready()
				}
				was = now
			}
		}
	})
}

// readers opens connections on which the prey pours.
func (a *arena) readers(ctx context.Context, read func([]net.Conn) error) error {
	dial := dialFrom(a.hostile, netip.AddrPortFrom(a.prey.Addr4, pourPort))
	conns := make([]net.Conn, readers)
	defer closeAll(conns)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range conns {
		g.Go(func() error {
			c, err := dial(ctx)
			if err == nil {
				conns[i] = c
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("opening readers: %w", err)
	}
	return read(conns)
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}
