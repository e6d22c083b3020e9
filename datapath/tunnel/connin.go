// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// connIn is the direction towards the application. It has no memory of its own:
// the stream's reader lends what it has decrypted and waits until that is read.
type connIn struct {
	mu     sync.Mutex
	ready  sync.Cond // for readers
	taken  sync.Cond // for the lender
	lent   []byte    // not read yet
	dst    []byte    // of the reader that waits, filled by the lender
	filled int
	eof    bool
	err    error // nothing more comes
	until  deadline
}

func (in *connIn) init() {
	in.ready.L, in.taken.L = &in.mu, &in.mu
	in.until.wakes = &in.ready
}

func (in *connIn) read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case in.err == net.ErrClosed:
			return 0, in.err
		case in.until.over:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(in.lent) > 0:
			n := copy(p, in.lent)
			if in.lent = in.lent[n:]; len(in.lent) == 0 {
				in.taken.Signal()
			}
			return n, nil
		case in.eof: // all that was sent has been read
			return 0, io.EOF
		case in.err != nil:
			return 0, in.err
		}
		if n := in.wait(p); n > 0 {
			return n, nil
		}
	}
}

// wait offers p to the lender, unless another reader does, and waits.
func (in *connIn) wait(p []byte) (n int) {
	mine := in.dst == nil
	if mine {
		in.dst = p
	}
	in.ready.Wait()
	if mine {
		n, in.dst, in.filled = in.filled, nil, 0
	}
	return n
}

// give lends p, and returns when it has been read, with how much of it was. It
// gives up when nobody reads and broken says that the tunnel is.
func (in *connIn) give(p []byte, broken func() bool) (n int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return 0, in.err
	}
	in.lent = p
	if in.dst != nil && in.filled == 0 {
		in.filled = copy(in.dst, p)
		in.lent = p[in.filled:]
	}
	in.ready.Broadcast()
	if len(in.lent) > 0 {
		err = in.untilTaken(broken)
	}
	n = len(p) - len(in.lent)
	in.lent = nil
	return n, err
}

func (in *connIn) untilTaken(broken func() bool) error {
	looks := 0
	look := func() {
		in.mu.Lock()
		looks++
		in.mu.Unlock()
		in.taken.Signal()
	}
	timer := time.AfterFunc(stallCheck, look)
	defer timer.Stop()
	for seen := 0; len(in.lent) > 0; {
		in.taken.Wait()
		if in.err != nil {
			return in.err
		}
		if looks > seen {
			seen = looks
			if broken() {
				return errStalled
			}
			timer.Reset(stallCheck)
		}
	}
	return nil
}

// shut is the end that the other side has sent.
func (in *connIn) shut() {
	in.mu.Lock()
	in.eof = true
	in.mu.Unlock()
	in.ready.Broadcast()
}

// fail ends the direction; what was not read is lost.
func (in *connIn) fail(err error) {
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	in.ready.Broadcast()
	in.taken.Broadcast()
}

// close ends the direction and reports whether something lies there unread.
func (in *connIn) close() (unread bool) {
	in.mu.Lock()
	unread = len(in.lent) > 0
	in.err = net.ErrClosed
	in.until.stop()
	in.mu.Unlock()
	in.ready.Broadcast()
	in.taken.Broadcast()
	return unread
}

// deadline wakes those who wait on a condition when its time has come.
type deadline struct {
	wakes *sync.Cond // what is below is guarded by its lock
	timer *time.Timer
	round int // a timer of an earlier one says nothing
	over  bool
}

func (d *deadline) set(t time.Time) {
	d.wakes.L.Lock()
	d.stop()
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		d.over = true
	default:
		round := d.round
		d.timer = time.AfterFunc(left, func() {
			d.wakes.L.Lock()
			d.over = d.over || d.round == round
			d.wakes.L.Unlock()
			d.wakes.Broadcast()
		})
	}
	d.wakes.L.Unlock()
	d.wakes.Broadcast()
}

// stop forgets the deadline. Callers hold the lock.
func (d *deadline) stop() {
	d.round++
	d.over = false
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
