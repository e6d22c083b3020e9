// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// incomingFlow is a flow to a local pod.
type incomingFlow struct {
	packets *tunnel.Packets
	tunnel  *tunnel.Tunnel
	pace    pace // guarded by flowTable.mu
}

// acceptPackets answers an OPEN of a flow that was judged.
func (p *Proxy) acceptPackets(ctx context.Context, t *tunnel.Tunnel, h tunnel.Header, rec flow.Record) (tunnel.App, func(tunnel.Result), tunnel.Reason) {
	uid := t.Session().(*inboundSession).pod.UID
	if !p.udpIn.take(uid) {
		p.refused(rec, refuse(reasonTooMany, "flow limit", "fewer flows", "the limit of the pod or the node is reached"))
		return nil, nil, tunnel.ReasonTooMany
	}
	conn, err := dialPodUDP(ctx, h.Src, h.Dst, p.cfg.Marks)
	var packets *tunnel.Packets
	if err == nil {
		packets, err = tunnel.NewPackets(conn)
	}
	if err != nil {
		p.udpIn.give(uid)
		p.refused(rec, refuseErr(reasonFlowSocket, err))
		return nil, nil, tunnel.ReasonUnreachable
	}
	packets.Settle() // nothing of the pod came before its socket
	began := p.cfg.Now()
	f := &incomingFlow{packets: packets, tunnel: t}
	f.pace.began(began)
	key := flowKey{src: h.Src, dst: h.Dst}
	p.flows.enter(key, f)
	rec.Time, rec.Verdict = began, flow.Allowed
	p.cfg.Flows.Add(rec)
	p.streams.Add(1)
	return packets, func(res tunnel.Result) {
		p.flows.exit(key, f)
		p.udpIn.give(uid)
		n := p.countPackets(tunnel.PacketCounts{}, packets.Counts())
		rec.DatagramsSent, rec.DatagramsReceived, rec.DatagramsDropped = n.Received, n.Sent, dropped(n)
		p.ended(rec, res, began, res.Received, res.Sent)
		p.sent.Add(res.Sent)
		p.received.Add(res.Received)
	}, tunnel.ReasonNone
}
