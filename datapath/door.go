// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// door is a listener that can stand still: its socket stays, connections wait
// in its queue, and whoever has the socket too may take them from there.
type door struct {
	*net.TCPListener

	mu       sync.Mutex
	moved    sync.Cond // on mu: any field below changed
	shut     bool
	standing bool // Accept waits for the door to open
	closed   bool
}

func newDoor(ln *net.TCPListener) *door {
	d := &door{TCPListener: ln}
	d.moved.L = &d.mu
	return d
}

// Accept waits for a connection, and while the door is shut for its opening.
func (d *door) Accept() (net.Conn, error) {
	for d.stand() {
		conn, err := d.TCPListener.AcceptTCP()
		if err != nil && (d.isShut() || errors.Is(err, os.ErrDeadlineExceeded)) {
			continue // woken by pause
		}
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	return nil, net.ErrClosed
}

// stand waits while the door is shut; false when it is closed for good.
func (d *door) stand() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.shut && !d.closed {
		d.standing = true
		d.moved.Broadcast()
		d.moved.Wait()
	}
	d.standing = false
	return !d.closed
}

func (d *door) isShut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut || d.closed
}

// pause shuts the door and, if asked to, waits until Accept stands still:
// whatever it returned before has been taken care of then.
func (d *door) pause(wait bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
	_ = d.SetDeadline(time.Unix(1, 0))
	for wait && d.shut && !d.standing && !d.closed {
		d.moved.Wait()
	}
}

func (d *door) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = false
	_ = d.SetDeadline(time.Time{})
	d.moved.Broadcast()
}

// leave lets go of the socket, which another process may have. The door stays
// shut; Accept goes on waiting.
func (d *door) leave() {
	d.pause(false)
	_ = d.TCPListener.Close()
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.moved.Broadcast()
	return d.TCPListener.Close()
}
