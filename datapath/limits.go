// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// Refusals of those who are not in the mesh become records at this rate; all
// are counted.
const (
	strangerRecords = 20 // a second
	strangerBurst   = 200
)

// limiter counts connections, in all and per pod (or client).
type limiter struct {
	total, perPod int

	mu   sync.Mutex
	used int
	pods map[string]int // by UID; only pods that have connections
	hits uint64         // how often there was no place
}

func (l *limiter) take(uid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= l.total || l.pods[uid] >= l.perPod {
		l.hits++
		return false
	}
	l.used++
	l.pods[uid]++
	return true
}

func (l *limiter) give(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	if l.pods[uid]--; l.pods[uid] == 0 {
		delete(l.pods, uid)
	}
}

func (l *limiter) refusals() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hits
}

// limitHits counts for each limit how often it was reached.
func (p *Proxy) limitHits(pool tunnel.PoolStats, srv tunnel.ServerStats) map[string]uint64 {
	return map[string]uint64{
		"outgoing":   p.out.refusals(),
		"incoming":   p.in.refusals(),
		"clients":    p.clients.refusals() + p.clientPods.refusals(),
		"dials":      pool.Held, // they waited; too-many-dials in flow records: in vain
		"handshakes": srv.Crowded,
		"tunnels":    srv.Shed,
		"flows":      p.udpOut.refusals() + p.udpIn.refusals(),
		"new-flows":  p.births.refusals(),
		"buffers":    p.budget.Refused(), // they went on in small ones
	}
}

func (l *limiter) inUse() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// carried is a connection that the idle watch looks at, and Recheck too where
// it has no tunnel.
type carried struct {
	it     carrier
	direct *direct
	moved  int64
	since  time.Time // moved did not change
	done   func()    // it has ended
}

// carrier carries one connection at a time.
type carrier interface {
	Moved() int64
	End(tunnel.Ending)
}

// stream is a tunnel of which the idle watch ends the connection alone.
type stream struct{ *tunnel.Tunnel }

func (s stream) End(e tunnel.Ending) { s.Abort(e.Reason) }

func (p *Proxy) watch(t *tunnel.Tunnel) (done func()) { return p.enter(stream{t}, nil).done }

func (p *Proxy) enter(it carrier, d *direct) *carried {
	c := &carried{it: it, direct: d, since: p.cfg.Now()}
	c.done = func() {
		p.activeMu.Lock()
		delete(p.active, c)
		p.activeMu.Unlock()
	}
	p.activeMu.Lock()
	p.active[c] = struct{}{}
	p.activeMu.Unlock()
	return c
}

// watchIdle resets connections that move nothing. Connections pay nothing
// for it: the watch reads their byte counters a few times per limit.
func (p *Proxy) watchIdle(ctx context.Context) {
	tick := time.NewTicker(max(p.cfg.Limits.Idle/8, 10*time.Millisecond))
	defer tick.Stop()
	expiry := time.NewTicker(expiryLook)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-expiry.C:
			p.expireDirect(p.cfg.Now())
		case <-tick.C:
			for _, it := range p.idle(p.cfg.Now()) {
				// A blocked write would hold the watch up.
				p.conns.Go(func() { it.End(tunnel.Ending{Reason: tunnel.ReasonIdle}) })
			}
		}
	}
}

func (p *Proxy) idle(now time.Time) []carrier {
	p.activeMu.Lock()
	defer p.activeMu.Unlock()
	var idle []carrier
	for c := range p.active {
		if moved := c.it.Moved(); moved != c.moved {
			c.moved, c.since = moved, now
		} else if now.Sub(c.since) >= p.cfg.Limits.Idle {
			idle = append(idle, c.it)
			c.since = now // once is enough
		}
	}
	return idle
}
