// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate lets whoever takes things from a socket stand still: the socket stays,
// what comes waits in its queue, and whoever has the socket too may take it
// from there.
type gate struct {
	sock interface {
		SetReadDeadline(t time.Time) error
		Close() error
	}

	mu       sync.Mutex
	moved    sync.Cond // on mu: any field below changed
	shut     bool
	standing bool // the taker waits for the gate to open
	closed   bool
}

// stand waits while the gate is shut; false when it is closed for good.
func (g *gate) stand() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut && !g.closed {
		g.standing = true
		g.moved.Broadcast()
		g.moved.Wait()
	}
	g.standing = false
	return !g.closed
}

// woken reports whether err is of a gate that was shut or closed, and not of
// the socket.
func (g *gate) woken(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut || g.closed || errors.Is(err, os.ErrDeadlineExceeded)
}

// pause shuts the gate and, if asked to, waits until the taker stands still:
// whatever it took before has been taken care of then.
func (g *gate) pause(wait bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	_ = g.sock.SetReadDeadline(time.Unix(1, 0))
	for wait && g.shut && !g.standing && !g.closed {
		g.moved.Wait()
	}
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	_ = g.sock.SetReadDeadline(time.Time{})
	g.moved.Broadcast()
}

// leave lets go of the socket, which another process may have. The gate stays
// shut; its taker goes on waiting.
func (g *gate) leave() {
	g.pause(false)
	_ = g.sock.Close()
}

// close ends the taker's waiting too.
func (g *gate) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.moved.Broadcast()
	return g.sock.Close()
}

// acceptGate is a gate's socket that accepts connections.
type acceptGate struct{ *net.TCPListener }

func (l acceptGate) SetReadDeadline(t time.Time) error { return l.SetDeadline(t) }

// door is a listener behind a gate.
type door struct {
	*net.TCPListener
	gate
}

func newDoor(ln *net.TCPListener) *door {
	d := &door{TCPListener: ln, gate: gate{sock: acceptGate{ln}}}
	d.moved.L = &d.mu
	return d
}

// Accept waits for a connection, and while the door is shut for its opening.
func (d *door) Accept() (net.Conn, error) {
	for d.stand() {
		conn, err := d.AcceptTCP()
		switch {
		case err == nil:
			return conn, nil
		case !d.woken(err):
			return nil, err
		}
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (d *door) Close() error { return d.close() }
