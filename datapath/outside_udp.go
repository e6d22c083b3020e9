// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// carrier of a flow, which the idle watch may have to end.
type flowCarrier interface{ Abort(tunnel.Reason) }

func (f *packetFlow) carriedBy(c flowCarrier) (done func()) {
	f.carrier.Store(&c)
	return func() { f.carrier.Store(nil) }
}

// passPackets carries a flow to an endpoint outside of the mesh. It returns why
// that may not be, or nil when it has been.
func (p *Proxy) passPackets(ctx context.Context, f *packetFlow, rec *flow.Record) *Refusal {
	x := f.outside
	rec.DstName = x.name()
	conn, err := p.dialOutside(ctx, "udp", x.to.Addr)
	if err != nil {
		return refuseErr(reasonExternalUnreachable, err)
	}
	far := conn.(*net.UDPConn)
	_ = far.SetReadBuffer(flowBuffer) // as much of it as the node allows
	link, err := tunnel.LinkPackets(f.packets, far, &p.bufs)
	if err != nil {
		_ = far.Close()
		return refuseErr(reasonExternalUnreachable, err)
	}
	judge := func() *Refusal { return p.judgePassage(x) }
	c := p.enter(link, &direct{judge: judge})
	defer c.done()
	// Judged after it was entered: no change of the rules slips in between.
	if why := judge(); why != nil {
		_ = far.Close()
		return why
	}
	began := p.cfg.Now()
	rec.Rule = externalRule + x.rule.Name
	p.allow(rec, began)
	p.streams.Add(1)
	p.outside.conns.Add(1)
	done := f.carriedBy(link)
	res := link.Run()
	done()
	p.countFlow(f, rec)
	p.ended(*rec, res, began, res.Sent, res.Received)
	p.outside.sent.Add(res.Sent)
	p.outside.received.Add(res.Received)
	return nil
}

// countFlow adds what a flow has carried since it was counted last to the
// proxy's counters and the record.
func (p *Proxy) countFlow(f *packetFlow, rec *flow.Record) {
	now := f.packets.Counts()
	n := p.countPackets(f.counted, now)
	f.counted = now
	rec.DatagramsSent, rec.DatagramsReceived, rec.DatagramsDropped = n.Sent, n.Received, dropped(n)
}
