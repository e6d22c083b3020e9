// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// flowTable holds the flows of a node: those its pods began, and those that
// came to them.
type flowTable struct {
	mu  sync.Mutex
	out map[flowKey]*packetFlow
	in  map[flowKey]*incomingFlow
}

func newFlowTable() flowTable {
	return flowTable{out: map[flowKey]*packetFlow{}, in: map[flowKey]*incomingFlow{}}
}

// hand gives a datagram to the flow it belongs to, and reports whether there
// is one. A refused flow, and that of a pod which had the address before, take
// nothing.
func (t *flowTable) hand(key flowKey, pod *LocalPod, payload []byte) (known, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.out[key]
	if f == nil {
		return false, false
	}
	if !f.refused.IsZero() || f.pod.UID != pod.UID {
		return true, false
	}
	f.packets.Hand(payload)
	return true, true
}

func (t *flowTable) add(f *packetFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out[f.key] = f
}

// end takes a flow out, unless a datagram has come for it since it ended.
func (t *flowTable) end(f *packetFlow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.packets.Again() {
		f.pace.finishing = time.Time{}
		return false
	}
	delete(t.out, f.key)
	_ = f.packets.Close()
	return true
}

// refuse leaves only the flow's name, for refusedFor.
func (t *flowTable) refuse(f *packetFlow, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.refused = now
	_ = f.packets.Close()
}

// enter makes a flow the one of its name. One that had it has been given up by
// the other node, which may not have said so yet; its socket must not get what
// belongs to the new one.
func (t *flowTable) enter(key flowKey, f *incomingFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.in[key]; old != nil {
		_ = old.packets.Close()
	}
	t.in[key] = f
}

func (t *flowTable) exit(key flowKey, f *incomingFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in[key] == f {
		delete(t.in, key)
	}
	_ = f.packets.Close()
}

// pace is what the idle watch knows of a flow.
type pace struct {
	sent, received uint64
	since          time.Time // nothing has moved
	finishing      time.Time // when it was told to end; zero while it was not
}

func (c *pace) began(now time.Time) { c.since = now }

// idle looks at the flow again and says for how long nothing has moved.
func (c *pace) idle(p *tunnel.Packets, now time.Time) time.Duration {
	if sent, received := p.Moved(); sent != c.sent || received != c.received {
		c.sent, c.received, c.since = sent, received, now
	}
	return now.Sub(c.since)
}

// stream reports whether the flow is more than a question and an answer.
func (c *pace) stream() bool { return c.sent > 1 && c.received > 1 }

// limit is how long a flow may be idle.
func (l *Limits) flowIdle(key flowKey, c *pace) time.Duration {
	switch {
	case key.dst.Port() == portDNS:
		return l.FlowIdleNames
	case c.stream():
		return l.FlowIdle
	}
	return l.FlowIdleShort
}

const (
	flowLook = time.Second
	// finishWithin is how long a flow may take to end in order.
	finishWithin = 5 * time.Second
)

// watchFlows ends flows that are idle.
func (p *Proxy) watchFlows(ctx context.Context) {
	l := &p.cfg.Limits
	tick := time.NewTicker(max(min(flowLook, l.FlowIdle/8, l.FlowIdleShort/8, l.FlowIdleNames/8), 5*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := p.cfg.Now()
		for _, t := range p.idleFlows(now) {
			// A blocked write would hold the watch up.
			p.conns.Go(func() { t.Abort(tunnel.ReasonIdle) })
		}
		p.notes.forget(now)
		p.births.forget(now)
	}
}

// idleFlows ends idle flows in order, and returns what carries those that
// must be ended otherwise.
func (p *Proxy) idleFlows(now time.Time) (abort []flowCarrier) {
	t, l := &p.flows, &p.cfg.Limits
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, f := range t.out {
		idle := f.pace.idle(f.packets, now)
		switch {
		case !f.refused.IsZero():
			if now.Sub(f.refused) >= refusedFor {
				delete(t.out, key)
				p.udpOut.give(f.pod.UID)
			}
		case !f.pace.finishing.IsZero():
			if now.Sub(f.pace.finishing) >= finishWithin {
				if carrier := f.carrier.Load(); carrier != nil {
					abort = append(abort, *carrier)
				}
			}
		case idle >= l.flowIdle(key, &f.pace) && f.carrier.Load() != nil:
			f.pace.finishing = now
			f.packets.Finish()
		}
	}
	for _, f := range t.in {
		// The node where it began ends it; this is for when it does not.
		if f.pace.idle(f.packets, now) >= 2*max(l.FlowIdle, l.FlowIdleShort) {
			f.pace.since = now
			abort = append(abort, f.tunnel)
		}
	}
	return abort
}
