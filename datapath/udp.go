// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy"
)

// settleAfter is more datagrams than the queue of a firsts socket holds: a flow
// whose socket was connected so many ago can have none left in it.
const settleAfter = 65536

// firsts is a socket that the first datagrams of flows are steered to. What
// comes after that reaches a socket of the flow's own, but some may already lie
// in this one's queue: a flow reads its own only when this queue has been
// empty, so that the order is kept.
type firsts struct {
	conn *net.UDPConn
	rc   syscall.RawConn
	self netip.AddrPort
	gate

	*batch
	err   error
	taken uint64
	young []youngFlow // in the order of their birth
	try   func(fd uintptr) bool
}

type youngFlow struct {
	packets *tunnel.Packets
	born    uint64 // taken at that time
}

func newFirsts(conn *net.UDPConn) (*firsts, error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &firsts{
		conn: conn, rc: rc, self: conn.LocalAddr().(*net.UDPAddr).AddrPort(), gate: gate{sock: conn},
		batch: newBatch(),
	}
	l.moved.L = &l.mu
	l.try = l.tryRead
	return l, nil
}

func (l *firsts) tryRead(fd uintptr) bool {
	if l.err = l.batch.take(fd); errors.Is(l.err, unix.EAGAIN) {
		l.settle(0)
		return false
	}
	return true
}

// read waits for the next datagrams.
func (l *firsts) read() error {
	if err := l.rc.Read(l.try); err != nil {
		return err
	}
	return l.err
}

// settle says of flows born at least age datagrams ago that none of theirs is
// left in the queue.
func (l *firsts) settle(age uint64) {
	n := 0
	for n < len(l.young) && l.taken-l.young[n].born >= age {
		l.young[n].packets.Settle()
		n++
	}
	clear(l.young[:n])
	if l.young = l.young[n:]; len(l.young) == 0 {
		l.young = nil
	}
}

func (l *firsts) born(packets *tunnel.Packets) {
	l.young = append(l.young, youngFlow{packets, l.taken})
}

// prepareUDP is the part of New that concerns UDP.
func (p *Proxy) prepareUDP() {
	l := &p.cfg.Limits
	p.flows, p.notes.seen, p.raw.marks, p.origDstUDP = newFlowTable(), map[noteKey]*note{}, p.cfg.Marks, origDstUDP
	p.udpOut = limiter{total: l.Flows, perPod: l.FlowsPerPod, pods: map[string]int{}}
	p.udpIn = limiter{total: l.Flows, perPod: l.FlowsPerPod, pods: map[string]int{}}
	p.births = births{perSecond: float64(l.FlowRate), burst: float64(l.FlowBurst), pods: map[string]*bucket{}}
	p.queries = limiter{total: l.NameQueries, perPod: l.NameQueriesPerPod, pods: map[string]int{}}
}

// takeDatagrams takes the datagrams that the kernel steered here.
func (p *Proxy) takeDatagrams(ctx context.Context, l *firsts) error {
	for l.stand() {
		err := l.read()
		switch {
		case err == nil:
			for i := range l.n {
				l.taken++
				l.settle(settleAfter)
				p.datagram(ctx, l, flowKey{src: l.source(i), dst: p.origDstUDP(l.control(i))}, l.payload(i))
			}
		case l.woken(err):
			l.settle(0) // whatever is left is the successor's
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("taking datagrams of pods: %w", err)
		default: // an error that ICMP reported, or no memory
			p.cfg.Log.Warn("taking a pod's datagram failed", "err", err)
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// datagram takes one datagram: to the flow it belongs to, to the node's
// resolver, or to a new flow.
func (p *Proxy) datagram(ctx context.Context, l *firsts, key flowKey, payload []byte) {
	pod, why := p.source(key.src, key.dst, l.self)
	if pod != nil {
		if known, taken := p.flows.hand(key, pod, payload); known {
			if !taken {
				p.datagrams.refused.Add(1)
			}
			return
		}
	}
	if why == nil && p.refusing.Load() {
		why = shuttingDown()
	}
	switch {
	case why != nil:
	case len(payload) > tunnel.MaxDatagram:
		why = refuse(reasonTooBig, "size of a datagram", fmt.Sprintf("at most %d bytes", tunnel.MaxDatagram), fmt.Sprintf("%d bytes", len(payload)))
	case p.asksNode(resolve.Query{Protocol: resolve.UDP, Src: key.src.Addr(), Dst: key.dst}):
		if !p.queries.take(pod.UID) {
			p.tooMany(pod, key, "limit of DNS queries", "fewer queries at once")
			return
		}
		why = p.answerDatagram(ctx, pod, key, payload)
	case !p.births.take(pod.UID, p.cfg.Now()):
		p.tooMany(pod, key, "limit of new flows", "fewer new flows a second")
		return
	case !p.udpOut.take(pod.UID):
		p.tooMany(pod, key, "flow limit", "fewer flows")
		return
	default:
		why = p.beginFlow(ctx, l, &packetFlow{key: key, pod: pod, rec: p.recordOf(pod, key)}, payload)
	}
	if why != nil {
		p.refusedDatagram(p.recordOf(pod, key), why)
	}
}

// recordOf is the record of a datagram that came from pod, nil where that is
// not known.
func (p *Proxy) recordOf(pod *LocalPod, key flowKey) flow.Record {
	rec := flow.Record{Direction: flow.Egress, Protocol: policy.ProtocolUDP, Src: key.src, Dst: key.dst, Node: p.cfg.NodeName}
	if pod != nil {
		rec.Pod, rec.SrcWorkload = pod.Name, pod.Workload
	}
	return rec
}

// tooMany refuses a datagram because its pod has reached a limit. It makes
// nothing that is not recorded: a pod may send as fast as it can.
func (p *Proxy) tooMany(pod *LocalPod, key flowKey, limit, expected string) {
	suppressed, due := p.noted(pod.Name, reasonTooMany)
	if !due {
		return
	}
	rec := p.recordOf(pod, key)
	rec.Suppressed = suppressed
	p.refused(rec, refuse(reasonTooMany, limit, expected, "the limit of the pod or the node is reached"))
}

// answerDatagram has the node's resolver answer one query, whose place it gives
// back, and needs no flow.
func (p *Proxy) answerDatagram(ctx context.Context, pod *LocalPod, key flowKey, query []byte) *Refusal {
	if _, why := p.usable(pod); why != nil {
		p.queries.give(pod.UID)
		return why
	}
	query = append([]byte(nil), query...)
	p.conns.Go(func() {
		defer p.queries.give(pod.UID)
		asker := askerOf(pod, key.src, key.dst)
		answer := p.cfg.DNS.Answer(ctx, asker, query, false)
		// An answer takes seconds, and the address may be another pod's by then.
		if answer == nil || !p.entitled(asker) {
			return
		}
		if err := p.raw.send(key.dst, key.src, answer); err != nil {
			p.cfg.Log.Debug("answering a DNS query failed", "pod", pod.Name, "err", err)
		}
	})
	return nil
}
