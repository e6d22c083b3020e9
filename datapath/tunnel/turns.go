// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"time"
)

// await waits for the right to shake hands: first among those of the same
// host, then among hosts. leave gives it back.
func (g *guests) await(v *guest, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(v.ctx, within)
	defer cancel()
	select {
	case v.host.slots <- struct{}{}:
		v.hosted = true
	case <-ctx.Done():
		return false
	}
	if g.admit(v) {
		return true
	}
	var patience <-chan time.Time
	if !v.known {
		timer := time.NewTimer(g.patience)
		defer timer.Stop()
		patience = timer.C
	}
	for {
		select {
		case <-v.turn:
			return true
		case <-patience:
			patience = nil
			g.push()
		case <-ctx.Done():
			return false
		}
	}
}

// admit gives v a slot if it may have one now, and a place in line if not.
func (g *guests) admit(v *guest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.out {
		return false
	}
	v.wait = v.class.line.PushBack(v)
	if v.known && g.taken() >= g.slots && g.known.shaking < g.peers {
		g.evict((*guest).shakes) // strangers have more than what is always theirs
	}
	g.advance()
	return v.shaking
}

func (g *guests) taken() int { return g.strangers.shaking + g.known.shaking }

func (v *guest) shakes() bool { return v.shaking }

// advance gives slots that are free to those in line, known addresses first.
// The lock is held.
func (g *guests) advance() {
	for g.taken() < g.slots {
		c := &g.strangers
		if g.known.line.Len() > 0 && g.known.shaking < g.peers {
			c = &g.known
		}
		first := c.line.Front()
		if first == nil {
			return
		}
		v := c.line.Remove(first).(*guest)
		v.wait, v.shaking = nil, true
		c.shaking++
		close(v.turn)
	}
}

// push has the first stranger in line take the place of another: it has waited
// for longer than an honest handshake takes. Every stranger that stays calls it
// once, so that none waits in vain.
func (g *guests) push() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.strangers.line.Len() > 0 {
		g.evict((*guest).shakes)
	}
}

// evict ends one of the strangers that which allows: of those from the network
// that has most guests the one that has been there for longest. The lock is
// held.
func (g *guests) evict(which func(*guest) bool) {
	var victim *guest
	most := 0
	for e := g.order.Front(); e != nil; e = e.Next() {
		v := e.Value.(*guest)
		if n := g.nets[v.net]; n > most && which(v) {
			victim, most = v, n
		}
	}
	if victim != nil {
		victim.cancel(errCrowded)
		g.forget(victim)
	}
}

// count is how many there are.
func (g *guests) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strangers.here + g.known.here
}
