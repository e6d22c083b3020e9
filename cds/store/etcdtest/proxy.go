// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"errors"
	"net"
	"sync"
)

// proxy passes TCP connections on and can hold up either direction. What it
// holds up it has not read, or not yet passed on; nothing is lost by healing.
type proxy struct {
	listener net.Listener
	backend  string

	mu sync.Mutex
	// changed is signalled when one of the others is.
	changed         *sync.Cond
	toward, back    bool // held up: to the member, from the member
	closed          bool
	conns           map[net.Conn]struct{}
	accepting, open sync.WaitGroup
}

func newProxy(backend string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, backend: backend, conns: make(map[net.Conn]struct{})}
	p.changed = sync.NewCond(&p.mu)
	p.accepting.Go(p.serve)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) block(toward, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toward, p.back = toward, back
	p.changed.Broadcast()
}

func (p *proxy) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) close() error {
	err := p.listener.Close()
	p.accepting.Wait()
	p.mu.Lock()
	p.closed = true
	p.changed.Broadcast()
	p.mu.Unlock()
	p.disconnect()
	p.open.Wait()
	return err
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.open.Go(func() { p.connect(client) })
		}
	}
}

func (p *proxy) connect(client net.Conn) {
	member, err := net.Dial("tcp", p.backend)
	if err != nil {
		// The client sees a connection reset at once instead of one refused.
		client.(*net.TCPConn).SetLinger(0)
		client.Close()
		return
	}
	if !p.track(client, member) {
		return
	}
	p.open.Go(func() { p.copy(client, member, &p.back) })
	p.copy(member, client, &p.toward)
}

// track remembers the two for disconnect, unless the proxy is closed.
func (p *proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			c.Close()
		} else {
			p.conns[c] = struct{}{}
		}
	}
	return !p.closed
}

// copy ends both connections when one ends.
func (p *proxy) copy(to, from net.Conn, held *bool) {
	defer func() {
		to.Close()
		from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err == nil && p.pass(held) {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// pass waits until the direction is open; false if the proxy was closed first.
func (p *proxy) pass(held *bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for *held && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}
