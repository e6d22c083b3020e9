// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// refusedFor is how long a refused flow's datagrams are dropped before it is
// judged again.
const refusedFor = time.Second

// flowKey names a flow as the pod that began it does.
type flowKey struct{ src, dst netip.AddrPort }

// packetFlow is a flow that a local pod began.
type packetFlow struct {
	key     flowKey
	pod     *LocalPod
	rec     flow.Record
	packets *tunnel.Packets
	counted tunnel.PacketCounts         // is in the proxy's counters
	outside *passage                    // where it leaves the mesh; else nil
	carrier atomic.Pointer[flowCarrier] // that carries it now

	pace    pace      // guarded by flowTable.mu, as the rest
	refused time.Time // when it was; its packets are closed then
}

// beginFlow judges what can be judged without the other end, and starts a flow
// with its first datagram, in a place that was taken for it. It runs where datagrams are taken: from when it
// returns, the kernel gives the flow's datagrams to the flow.
func (p *Proxy) beginFlow(ctx context.Context, l *firsts, f *packetFlow, first []byte) *Refusal {
	if why := p.admitFlow(f); why != nil {
		p.udpOut.give(f.pod.UID)
		return why
	}
	if err := p.openFlow(ctx, l, f); err != nil {
		p.udpOut.give(f.pod.UID)
		return refuseErr(reasonFlowSocket, err)
	}
	f.pace.began(p.cfg.Now())
	f.packets.Hand(first)
	p.flows.add(f)
	p.conns.Go(func() { p.runFlow(ctx, f) })
	return nil
}

// admitFlow judges a flow before anything is made for it.
func (p *Proxy) admitFlow(f *packetFlow) *Refusal {
	if _, why := p.usable(f.pod); why != nil {
		return why
	}
	q := resolve.Query{Protocol: resolve.UDP, Src: f.key.src.Addr(), Dst: f.key.dst}
	if target, verdict := p.cfg.Mesh.Resolve(q); verdict != resolve.Found {
		x, why := p.externalFor(f.pod, q, unresolved(verdict, f.key.dst, target.Service))
		if why != nil {
			return why
		}
		f.outside, f.rec.Service = x, target.Service
	}
	return nil
}

// openFlow makes the flow's end towards its pod.
func (p *Proxy) openFlow(ctx context.Context, l *firsts, f *packetFlow) error {
	conn, err := connectUDP(ctx, f.key.dst, f.key.src, p.cfg.Marks)
	if errors.Is(err, unix.EADDRINUSE) {
		// A program of the node has the port on every address: the flow lives
		// without a socket, from what is taken here.
		f.packets = tunnel.HandedPackets(func(b []byte) error { return p.raw.send(f.key.dst, f.key.src, b) })
		return nil
	}
	if err != nil {
		return err
	}
	if f.packets, err = tunnel.NewPackets(conn); err != nil {
		_ = conn.Close()
		return err
	}
	l.born(f.packets)
	return nil
}

// runFlow carries a flow until nothing more comes.
func (p *Proxy) runFlow(ctx context.Context, f *packetFlow) {
	for {
		rec := f.rec
		why, refused := p.carryPackets(ctx, f, &rec)
		if why != nil {
			p.refusedDatagram(rec, why)
		}
		if why != nil || refused {
			p.flows.refuse(f, p.cfg.Now())
			p.countFlow(f, &rec)
			return
		}
		if p.flows.end(f) {
			p.countFlow(f, &rec) // what was handed to it after its record, and is lost
			p.udpOut.give(f.pod.UID)
			return
		}
	}
}

// carryPackets returns why the flow may not be, or nil when it has been;
// refused says that the other node would not have it, which is recorded.
func (p *Proxy) carryPackets(ctx context.Context, f *packetFlow, rec *flow.Record) (why *Refusal, refused bool) {
	pod, ok := p.cfg.Mesh.Pod(f.key.src.Addr())
	if !ok || pod.UID != f.pod.UID {
		return refuse(reasonUnknownSource, "local pods", "the pod "+f.pod.Name, "it is gone"), false
	}
	if _, why := p.usable(pod); why != nil {
		return why, false
	}
	if f.outside != nil {
		return p.passPackets(ctx, f, rec), false
	}
	lease, dst, why := p.reach(ctx, pod, resolve.UDP, rec)
	if why != nil {
		return why, false
	}
	defer p.pool.Put(lease)
	h := tunnel.Header{Proto: tunnel.ProtoUDP, Src: rec.Src, Dst: dst}
	return nil, p.relayPackets(f, lease.Tunnel, h, *rec)
}

func (p *Proxy) relayPackets(f *packetFlow, t *tunnel.Tunnel, h tunnel.Header, rec flow.Record) (refused bool) {
	began := p.cfg.Now()
	rec.Time, rec.Verdict = began, flow.Allowed
	p.cfg.Flows.Add(rec)
	p.streams.Add(1)
	done := f.carriedBy(t)
	res := t.RelayPackets(f.packets, h)
	done()
	p.countFlow(f, &rec)
	p.ended(rec, res, began, res.Sent, res.Received)
	p.sent.Add(res.Sent)
	p.received.Add(res.Received)
	return res.Refused
}

// countPackets adds what passed since before to the proxy's counters.
func (p *Proxy) countPackets(before, now tunnel.PacketCounts) tunnel.PacketCounts {
	n := tunnel.PacketCounts{
		Sent: now.Sent - before.Sent, Received: now.Received - before.Received, Unsent: now.Unsent - before.Unsent,
		Unreceived: now.Unreceived - before.Unreceived, TooBig: now.TooBig - before.TooBig,
	}
	p.datagrams.sent.Add(n.Sent)
	p.datagrams.received.Add(n.Received)
	p.datagrams.dropped.Add(dropped(n))
	return n
}

func dropped(n tunnel.PacketCounts) uint64 { return n.Unsent + n.Unreceived + n.TooBig }
