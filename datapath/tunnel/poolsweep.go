// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"time"
)

// CloseWhere closes every tunnel, idle or lent, that judge gives an ending,
// and returns how many. Connections on them are reset.
func (p *Pool) CloseWhere(judge func(Key, Meta, *Tunnel) *Ending) int {
	p.mu.Lock()
	kill := map[*Lease]*Ending{}
	for key, k := range p.keys {
		keep := k.idle[:0]
		for _, l := range k.idle {
			if e := judge(key, l.Meta, l.Tunnel); e != nil {
				kill[l] = e
				p.idled(key.Owner, -1)
			} else {
				keep = append(keep, l)
			}
		}
		clear(k.idle[len(keep):])
		k.idle = keep
	}
	for l := range p.busy {
		if e := judge(l.key, l.Meta, l.Tunnel); e != nil {
			l.expired.Store(true)
			kill[l] = e
		}
	}
	p.mu.Unlock()
	for l, e := range kill {
		l.Tunnel.End(*e)
	}
	p.discarded.Add(uint64(len(kill)))
	return len(kill)
}

// Run closes tunnels that are idle for too long or whose time is over, until
// ctx ends; then it closes them all.
func (p *Pool) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.sweep()
		case <-ctx.Done():
			p.shutdown()
			return
		}
	}
}

func (p *Pool) sweep() {
	now := p.cfg.Now()
	over := &Ending{Reason: ReasonPolicyChanged, Why: errExpired}
	p.CloseWhere(func(_ Key, m Meta, _ *Tunnel) *Ending {
		if now.Before(m.NotAfter) {
			return nil
		}
		return over
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, k := range p.keys {
		n := 0
		for n < len(k.idle) && now.Sub(k.idle[n].idleAt) > p.cfg.IdleTimeout {
			p.discard(k.idle[n])
			p.idled(key.Owner, -1)
			n++
		}
		k.idle = k.idle[n:]
		if len(k.idle) == 0 && k.dials == 0 && len(k.waiters) == 0 && now.Sub(k.used) > p.cfg.IdleTimeout {
			delete(p.keys, key)
		}
	}
}

func (p *Pool) shutdown() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	for _, k := range p.keys {
		for _, w := range k.waiters {
			w.ch <- got{err: ErrPoolClosed}
		}
		k.waiters = nil
	}
	p.mu.Unlock()
	p.CloseWhere(func(Key, Meta, *Tunnel) *Ending { return &Ending{Reason: ReasonShutdown} })
	p.dialing.Wait()
}

// Stats returns a snapshot.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStats{
		Busy: len(p.busy), Dials: p.dials.Load(), DialErrors: p.dialErrors.Load(),
		Reused: p.reused.Load(), Discarded: p.discarded.Load(),
		Dialing: p.caps.used, Waiting: p.caps.waiting(), Held: p.caps.held,
	}
	for _, k := range p.keys {
		s.Idle += len(k.idle)
	}
	return s
}
