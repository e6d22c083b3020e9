// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// drainLook is how often Drain looks whether something is still carried.
const drainLook = 50 * time.Millisecond

// Pause has the proxy accept no more connections, of pods or other nodes. They
// wait in the queues of the sockets, where a successor that has the sockets
// finds them. What was accepted before goes on; but a DNS connection ends with the
// first query that the resolver leaves unanswered.
func (p *Proxy) Pause() {
	p.paused.Store(true)
	for _, d := range p.pods {
		d.pause(true)
	}
	p.published.pause()
	for _, l := range p.packets {
		l.pause(true)
	}
	p.tunnels.pause(false) // handshakes may hold it up; they go on
}

// Resume undoes Pause.
func (p *Proxy) Resume() {
	p.paused.Store(false)
	for _, d := range p.pods {
		d.resume()
	}
	p.published.resume()
	for _, l := range p.packets {
		l.resume()
	}
	p.tunnels.resume()
}

// Leave is for after a hand-over: it gives up the sockets, and asks other nodes
// to open no further streams on the tunnels they have.
func (p *Proxy) Leave() {
	for _, d := range p.pods {
		d.leave()
	}
	p.published.leave()
	for _, l := range p.packets {
		l.leave()
	}
	p.tunnels.leave()
	p.server.Retire()
}

// Refuse has new connections reset from now on: the daemon ends and nobody
// takes over. The listeners must stay, because without them the kernel drops
// the packets of established connections too.
func (p *Proxy) Refuse() { p.refusing.Store(true) }

// Drain returns once nothing has been carried for as long as quiet, or when
// ctx ends; what is left then is reset, on both sides, and counted.
func (p *Proxy) Drain(ctx context.Context, quiet time.Duration) (left int) {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	last, since := p.streams.Load(), p.cfg.Now()
	for {
		busy, now := p.out.inUse()+p.in.inUse()+p.clients.inUse()+p.udpOut.inUse()+p.udpIn.inUse(), p.cfg.Now()
		if streams := p.streams.Load(); busy > 0 || streams != last {
			last, since = streams, now
		}
		if busy == 0 && now.Sub(since) >= quiet {
			return 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return p.endAll(busy)
		}
	}
}

func (p *Proxy) endAll(busy int) int {
	ending := &tunnel.Ending{Reason: tunnel.ReasonShutdown, Why: refuse(reasonShutdown, "end of the daemon", "a connection that ends within the drain time", "one that goes on")}
	p.pool.CloseWhere(func(tunnel.Key, tunnel.Meta, *tunnel.Tunnel) *tunnel.Ending { return ending })
	p.server.CloseWhere(func(*tunnel.Tunnel) *tunnel.Ending { return ending })
	p.endDirect(func(*direct) *tunnel.Ending { return ending })
	return busy
}

// shuttingDown is why a new connection is refused while the daemon ends.
func shuttingDown() *Refusal {
	return refuse(reasonShutdown, "end of the daemon", "a daemon that goes on", "it was told to end")
}
