// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// connOut is the direction from the application: what is written while a frame
// leaves is gathered for the next one, where it will be framed.
type connOut struct {
	mu    sync.Mutex
	room  sync.Cond // for writers
	work  sync.Cond // for the sender
	buf   *buffer   // payload from appHead on; nil while there is none
	n     int
	fin   error // no more is written
	err   error // no more is sent
	until deadline
}

// what there is to send next.
type what uint8

const (
	nothing  what = iota // yet
	data                 // a frame
	finished             // the end of the direction
	ended                // nothing ever more
)

func (o *connOut) init() {
	o.room.L, o.work.L = &o.mu, &o.mu
	o.until.wakes = &o.room
}

func (o *connOut) write(bufs *account, p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.err != nil:
			return n, o.err
		case o.fin != nil:
			return n, o.fin
		case o.until.over:
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		}
		if o.buf == nil {
			o.buf = bufs.get(payloadClass(len(p) - n))
		}
		k := copy(o.buf.b[appHead+o.n:appHead+payloadOf(o.buf.class)], p[n:])
		o.n += k
		switch n += k; {
		case n == len(p):
			o.work.Signal()
			return n, nil
		case k == 0:
			o.room.Wait()
		default:
			o.work.Signal()
		}
	}
}

// payloadOf is how much of a connection one frame in a buffer of the class
// carries: of the largest, maxData.
func payloadOf(class int) int { return classSize(class) - headerLen }

func payloadClass(n int) int {
	for c := range classLarge {
		if n <= payloadOf(c) {
			return c
		}
	}
	return classLarge
}

// next waits for something to send, unless it is the first time: OPEN does not
// wait. The buffer is the caller's then.
func (o *connOut) next(first bool) (*buffer, int, what) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !first && o.buf == nil && o.fin == nil && o.err == nil {
		o.work.Wait()
	}
	switch buf, n := o.buf, o.n; {
	case o.err != nil:
		return nil, 0, ended
	case buf != nil:
		o.buf, o.n = nil, 0
		o.room.Broadcast()
		return buf, n, data
	case o.fin != nil:
		return nil, 0, finished
	}
	return nil, 0, nothing
}

// finish ends the direction once everything is sent.
func (o *connOut) finish() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return o.err
	case o.fin == net.ErrClosed:
		return o.fin
	}
	o.end(syscall.EPIPE)
	return nil
}

// close is finish for a connection that is closed.
func (o *connOut) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end(net.ErrClosed)
	o.until.stop()
}

// end has later writers see why. Callers hold mu.
func (o *connOut) end(why error) {
	o.fin = why
	o.work.Signal()
	o.room.Broadcast()
}

// fail ends the direction; what was not sent is lost.
func (o *connOut) fail(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.mu.Unlock()
	o.room.Broadcast()
	o.work.Broadcast()
}

// drop gives back what nobody sends.
func (o *connOut) drop(bufs *account) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = net.ErrClosed
	}
	bufs.put(o.buf)
	o.buf, o.n = nil, 0
}
