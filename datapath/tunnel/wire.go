// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"net"
	"sync"
)

const (
	recordHeader   = 5
	recordOverhead = recordHeader + 1 + 16 // header, content type, AEAD tag
	// recordPlain is the plaintext of the records we send. The receiver's
	// crypto/tls keeps a buffer of the largest record it has seen while the
	// tunnel lives: 8 KiB records would save 9 KB on each side after bulk
	// traffic and cost 3 % more CPU for it.
	recordPlain = 1 << 14
)

// wire is the connection under a tls.Conn.
//
// crypto/tls writes every record by itself and reads into a buffer that grows
// and never shrinks. wire gathers the records of one tunnel write into few
// system calls, reads many records at once into lent memory, and hands
// crypto/tls one record at a time, so that it never holds more than one.
type wire struct {
	net.Conn
	in   *inlet
	left int // bytes of the record being handed out

	mu     sync.Mutex // guards the write side: crypto/tls also writes alerts by itself
	out    *outlet
	buf    *buffer
	n      int
	corked bool
}

func newWire(conn net.Conn, bufs *account, abandoned func() bool) *wire {
	return &wire{Conn: conn, in: newInlet(conn, bufs, 0, 0), out: newOutlet(conn, abandoned)}
}

// record returns the size of the record at the front, or 0 when its header is
// not there yet.
func (w *wire) record() int {
	b := w.in.bytes()
	if len(b) < recordHeader {
		return 0
	}
	return recordHeader + int(b[3])<<8 + int(b[4])
}

// ready reports whether a complete record is buffered: decrypting it will not
// wait.
func (w *wire) ready() bool {
	n := w.record()
	return n > 0 && w.in.buffered() >= n
}

// wait blocks until ready, or until the budget has no room for a record that
// has begun. It may be interrupted by a read deadline without harm to the TLS
// session.
func (w *wire) wait() error {
	for !w.ready() {
		need := max(w.record(), recordHeader)
		if !w.in.fits(need) {
			return nil
		}
		if err := w.in.fill(need); err != nil {
			return err
		}
	}
	return nil
}

// plainReady returns an upper bound of the plaintext that is ready.
func (w *wire) plainReady() int { return w.in.buffered() }

// Read serves crypto/tls. It never returns bytes of two records.
func (w *wire) Read(p []byte) (int, error) {
	for w.left == 0 {
		if w.left = w.record(); w.left == 0 {
			if err := w.in.fill(recordHeader); err != nil {
				return 0, err
			}
		}
	}
	if w.in.buffered() == 0 {
		if err := w.in.fill(w.left); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.in.bytes()[:min(w.left, w.in.buffered())])
	w.left -= n
	w.in.consume(n)
	return n, nil
}

// cork begins a tunnel write of several records; uncork ends it.
func (w *wire) cork() {
	w.mu.Lock()
	w.corked = true
	w.mu.Unlock()
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = false
	return w.flush()
}

func (w *wire) flush() error {
	if w.buf == nil {
		return nil
	}
	_, err := w.out.write(w.buf.b[:w.n])
	w.in.bufs.put(w.buf)
	w.buf, w.n = nil, 0
	return err
}

// Write serves crypto/tls.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		if err := w.flush(); err != nil {
			return 0, err
		}
		return w.out.write(p)
	}
	for done := 0; done < len(p); {
		if w.buf == nil {
			if w.buf = w.in.bufs.take(classLarge); w.buf == nil {
				n, err := w.out.write(p[done:]) // over the budget: record by record
				return done + n, err
			}
		}
		n := copy(w.buf.b[w.n:], p[done:])
		w.n += n
		done += n
		if w.n == len(w.buf.b) {
			if err := w.flush(); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}
