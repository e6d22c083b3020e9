// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxWaiting is how many connections of load balancers may be about to send
// their header. Further ones wait in the kernel.
const maxWaiting = 1024

// door accepts clients: it reads the header of the PROXY protocol where one
// must come, and refuses who has too many connections.
type door struct {
	net.Listener
	proxies []netip.Prefix
	clients *clients
	refused func(reason string)
	wait    time.Duration
	log     *slog.Logger

	ready  chan net.Conn
	places chan struct{}
	life   context.Context
	end    context.CancelFunc
	once   sync.Once
	failed error // why accepting ended; set before life ends
}

func newDoor(ln net.Listener, s *Server) *door {
	d := &door{
		Listener: ln, proxies: s.cfg.Listen.Proxies, clients: s.clients, refused: s.metrics.refusedConn, wait: s.cfg.Limits.Header, log: s.cfg.Log,
		ready: make(chan net.Conn), places: make(chan struct{}, maxWaiting),
	}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	if len(d.proxies) == 0 {
		for {
			conn, err := d.Listener.Accept()
			if err != nil {
				return nil, err
			}
			if c := d.admit(conn, addrOf(conn.RemoteAddr())); c != nil {
				return c, nil
			}
		}
	}
	d.once.Do(func() { go d.acceptAll() })
	select {
	case conn := <-d.ready:
		return conn, nil
	case <-d.life.Done():
		return nil, d.failed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	err := d.Listener.Close()
	d.once.Do(func() { d.failed = net.ErrClosed; d.end() }) // nobody accepts who would do it
	return err
}

func (d *door) acceptAll() {
	defer d.end()
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				d.failed = err
				return
			}
			d.log.Warn("accepting a client failed", "err", err) // out of descriptors, or it gave up in the queue
			time.Sleep(20 * time.Millisecond)
			continue
		}
		d.places <- struct{}{}
		go func() {
			defer func() { <-d.places }()
			d.introduce(conn)
		}()
	}
}

// introduce finds out who a connection's client is.
func (d *door) introduce(conn net.Conn) {
	from := addrOf(conn.RemoteAddr())
	var in net.Conn
	if slices.ContainsFunc(d.proxies, func(p netip.Prefix) bool { return p.Contains(from.Addr()) }) {
		_ = conn.SetReadDeadline(time.Now().Add(d.wait))
		src, err := readProxyHeader(conn)
		_ = conn.SetReadDeadline(time.Time{})
		if err != nil {
			d.refused("proxy-header")
			d.log.Debug("a load balancer's connection was refused", "from", from, "err", err)
			_ = conn.Close()
			return
		}
		if !src.IsValid() { // the balancer itself, asking whether we are well
			src = from
		}
		in = d.admit(&introduced{conn, net.TCPAddrFromAddrPort(src)}, src)
	} else {
		in = d.admit(conn, from)
	}
	if in == nil {
		return
	}
	select {
	case d.ready <- in:
	case <-d.life.Done():
		_ = in.Close()
	}
}

// admit counts a client's connection, or closes it and returns nil.
func (d *door) admit(conn net.Conn, from netip.AddrPort) net.Conn {
	if !d.clients.take(from.Addr()) {
		d.refused("too-many-connections")
		_ = conn.Close()
		return nil
	}
	return &counted{Conn: conn, give: sync.OnceFunc(func() { d.clients.give(from.Addr()) })}
}

// counted gives its place back when it closes.
type counted struct {
	net.Conn
	give   func()
	client *client // nil until it is greeted; set before a request can come
	fin    atomic.Bool
}

// Read implements net.Conn. It notes the end of TCP: where the last word of TLS
// came before it, nobody reads so far.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.fin.Store(true)
	}
	return n, err
}

// Close implements net.Conn. What connections hold is given back with it, those
// of WebSockets too, of which net/http knows nothing any more.
func (c *counted) Close() error {
	c.give()
	if c.client != nil {
		c.client.leave()
	}
	return c.Conn.Close()
}

// NetConn is for cutOff.
func (c *counted) NetConn() net.Conn { return c.Conn }

// introduced has the address that a load balancer named.
type introduced struct {
	net.Conn
	from net.Addr
}

// NetConn is for cutOff.
func (c *introduced) NetConn() net.Conn { return c.Conn }

// RemoteAddr implements net.Conn.
func (c *introduced) RemoteAddr() net.Addr { return c.from }

func addrOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
