// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Both ends do random things at random times. Whatever happens, what arrives is
// what was sent, from its beginning and without a gap; an end in order comes
// after all of it; and the tunnel works afterwards.
func TestConnIsNeverConfusedByRandomEndings(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		for i := range 300 {
			rnd := mrand.New(mrand.NewPCG(uint64(i), 11))
			c, done := r.open(t)
			far := r.farEnd(t)
			near := newMisbehaved(rnd, c, func() { c.Close() })
			other := newMisbehaved(rnd, far, func() { abort(far) })
			var wg sync.WaitGroup
			near.start(&wg)
			other.start(&wg)
			wg.Wait()
			if near.wrong != nil || other.wrong != nil {
				t.Fatalf("stream %d: near %v, far %v", i, near.wrong, other.wrong)
			}
			if near.read == io.EOF && near.got != other.total {
				t.Fatalf("stream %d: an end in order after %d of %d bytes", i, near.got, other.total)
			}
			// Of a socket's write and read, the first to fail is told of the reset.
			if other.read == io.EOF && other.wrote == nil && other.got != near.total {
				t.Fatalf("stream %d: far: an end in order after %d of %d bytes", i, other.got, near.total)
			}
			c.Close()
			far.Close()
			if res := await(t, done); res.Err != nil {
				t.Fatalf("stream %d: %+v", i, res)
			}
			await(t, r.farResult)
			if !r.opener.Idle() {
				t.Fatalf("stream %d: the tunnel cannot be used again", i)
			}
		}
		r.roundTrip(t)
	})
}

// misbehaved is an application that sends bytes that say where they belong.
type misbehaved struct {
	conn interface {
		net.Conn
		CloseWrite() error
	}
	abort func()
	rnd   *mrand.Rand
	total int // what it means to send
	fin   bool

	got         int
	wrote, read error
	wrong       error // what must not be
}

func newMisbehaved(rnd *mrand.Rand, c interface {
	net.Conn
	CloseWrite() error
}, abort func(),
) *misbehaved {
	return &misbehaved{conn: c, abort: abort, total: rnd.IntN(300_000), fin: rnd.IntN(4) > 0, rnd: mrand.New(mrand.NewPCG(rnd.Uint64(), 1))}
}

func (m *misbehaved) start(wg *sync.WaitGroup) {
	buf := make([]byte, 1+m.rnd.IntN(50_000))
	wg.Go(func() { m.wrote = m.send() })
	wg.Go(func() {
		for m.read == nil {
			var n int
			n, m.read = m.conn.Read(buf)
			for i, b := range buf[:n] {
				if b != byte((m.got+i)%251) {
					m.wrong = fmt.Errorf("byte %d is wrong", m.got+i)
					return
				}
			}
			m.got += n
		}
	})
}

func (m *misbehaved) send() error {
	for at := 0; at < m.total; {
		p := make([]byte, min(m.total-at, 1+m.rnd.IntN(90_000)))
		for i := range p {
			p[i] = byte((at + i) % 251)
		}
		n, err := m.conn.Write(p)
		if at += n; err != nil {
			return err
		}
	}
	if m.fin {
		return m.conn.CloseWrite()
	}
	m.abort()
	return nil
}
