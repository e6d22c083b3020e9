// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// idleTime is how long a connection without requests is kept.
	idleTime = 90 * time.Second
	// maxIdle bounds such connections to one origin.
	maxIdle = 32
	// maxStale bounds on how many old connections one request has their proof
	// renewed.
	maxStale = 4
)

// origin is one host and port: its connections, what is known of the keys at
// their other ends, and the operators' word as it was last read there. Replicas
// behind one address have a key each.
type origin struct {
	c          *Client
	host, addr string
	base       string
	dialling   gate

	mu     sync.Mutex
	closed bool
	multi  protocol // what the last connection spoke
	conns  []*conn  // proven at least once; the latest used last
	keys   map[[32]byte]*standing
	word   *word
	tended bool // a goroutine looks after the connections

	behind  followed  // what a peer was last found behind of
	patient time.Time // until when it is waited for
}

type protocol int

const (
	unknown protocol = iota
	http1
	http2
)

func newOrigin(c *Client, host, addr string) *origin {
	base := "https://" + addr
	if h, port, err := net.SplitHostPort(addr); err == nil && port == "443" {
		if base = "https://" + h; net.ParseIP(h) != nil && net.ParseIP(h).To4() == nil {
			base = "https://[" + h + "]"
		}
	}
	return &origin{c: c, host: host, addr: addr, base: base, dialling: newGate(), keys: map[[32]byte]*standing{}}
}

func (o *origin) standing(key [32]byte) *standing {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.keys[key]
	if s == nil {
		s = &standing{gate: newGate()}
		o.keys[key] = s
	}
	return s
}

// lately returns the word if it was read within one rhythm of proofs.
func (o *origin) lately() *word {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.word; w != nil {
		if age := o.c.cfg.Now().Sub(w.at); age >= 0 && age < o.c.renewal() {
			return w
		}
	}
	return nil
}

func (o *origin) take(w *word) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.word = w
}

// renewal is how often proofs are asked for while connections live.
func (c *Client) renewal() time.Duration { return min(renewEvery, c.cfg.MaxAge/3) }

// pick reserves a place for one request on a live connection, if there is one.
func (o *origin) pick(h1 bool) *conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conns = slices.DeleteFunc(o.conns, func(cn *conn) bool { return cn.cc.Err() != nil })
	for i := len(o.conns) - 1; i >= 0; i-- {
		cn := o.conns[i]
		if cn.retired || h1 && cn.h2 || cn.cc.Available() < 1 || cn.cc.Reserve() != nil {
			continue
		}
		o.conns = append(slices.Delete(o.conns, i, i+1), cn)
		cn.idleSince = time.Time{}
		return cn
	}
	return nil
}

// acquire returns a proven connection with a place reserved for one request.
func (o *origin) acquire(ctx context.Context, h1 bool) (*conn, error) {
	for range maxStale {
		cn := o.pick(h1)
		if cn == nil {
			break
		}
		s, now := o.standing(cn.key), o.c.cfg.Now()
		if s.fresh(now) {
			if s.due(now, o.c.renewal()) {
				o.tend() // in the background
			}
			return cn, nil
		}
		cn.cc.Release()
		if err := o.reprove(ctx, cn); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			o.c.cfg.Log.Warn("a connection cannot be proven any more", "addr", o.addr, "err", err)
			o.retire(cn)
		}
	}
	return o.open(ctx, h1)
}

// reprove asks on a live connection for a newer proof.
func (o *origin) reprove(ctx context.Context, cn *conn) error {
	ctx, cancel := context.WithTimeout(ctx, o.c.cfg.Within)
	defer cancel()
	return o.prove(ctx, cn.peer, true)
}

// open makes a connection. Where HTTP/2 may be spoken one at a time is made: the
// others may share it.
func (o *origin) open(ctx context.Context, h1 bool) (*conn, error) {
	if !h1 && o.spoken() != http1 {
		if err := o.dialling.enter(ctx); err != nil {
			return nil, err
		}
		if o.spoken() == http1 {
			o.dialling.leave()
		} else {
			defer o.dialling.leave()
			if cn := o.pick(h1); cn != nil {
				if o.standing(cn.key).fresh(o.c.cfg.Now()) {
					return cn, nil
				}
				cn.cc.Release() // too old by now, or one of more than acquire looks at
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.c.cfg.Within)
	defer cancel()
	cn, err := o.connect(ctx, h1)
	if err != nil {
		return nil, err
	}
	if err := o.prove(ctx, cn.peer, false); err != nil {
		cn.cc.Close()
		return nil, err
	}
	if err := cn.cc.Reserve(); err != nil {
		cn.cc.Close()
		return nil, err
	}
	if err := o.add(cn, h1); err != nil {
		cn.cc.Close()
		return nil, err
	}
	o.tend()
	return cn, nil
}

func (o *origin) spoken() protocol {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.multi
}

func (o *origin) add(cn *conn, h1 bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return errClosed
	}
	switch {
	case cn.h2:
		o.multi = http2
	case !h1:
		o.multi = http1
	}
	o.conns = append(o.conns, cn)
	return nil
}

// retire lets a connection end with the requests it carries.
func (o *origin) retire(cn *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cn.retired = true
	if cn.cc.InFlight() == 0 {
		cn.cc.Close()
	}
}

func (o *origin) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, cn := range o.conns {
		cn.cc.Close()
	}
	o.conns = nil
}
