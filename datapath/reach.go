// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// attempts is how many endpoints of a Service one connection tries.
const attempts = 3

// reach gets a tunnel to the pod that rec.Dst means, judged for this
// connection, and returns that pod. An endpoint of a Service that fails is
// replaced by another: nothing was read from the application yet. If all fail,
// it returns what the first one was refused for, or the first that a rule
// refused; no rule's word is lost behind a node that does not answer. There is
// no lease for a pod that is reached without a tunnel (carryLocal).
func (p *Proxy) reach(ctx context.Context, pod *LocalPod, proto resolve.Protocol, rec *flow.Record) (*tunnel.Lease, netip.AddrPort, *Refusal) {
	// A handshake may take a while; nobody waits longer than this.
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.DialTimeout)
	defer cancel()
	q := resolve.Query{Protocol: proto, Src: rec.Src.Addr(), Dst: rec.Dst}
	var failed failure
	for left := attempts; ; left-- {
		target, verdict := p.choose(q, pod.Workload)
		if verdict != resolve.Found {
			if failed.why == nil {
				rec.Service = target.Service
				return nil, netip.AddrPort{}, unresolved(verdict, rec.Dst, target.Service)
			}
			return nil, netip.AddrPort{}, failed.report(rec)
		}
		last := !target.Others || left == 1
		if last {
			left = 1
		}
		at := *rec
		lease, why := p.attempt(ctx, pod, proto, target, left, &at)
		if why == nil {
			*rec = at
			p.works(pod, proto, target)
			return lease, target.Pod, nil
		}
		failed.add(at, why)
		if why.Code == reasonTooManyDials && ctx.Err() == nil && !last {
			continue // its turn may come in the time that is left
		}
		if !why.elsewhere {
			*rec = at
			return nil, netip.AddrPort{}, why
		}
		if target.Others || len(q.Avoid) > 0 {
			p.passOver(pod, proto, target, at, why)
		}
		if last || ctx.Err() != nil {
			return nil, netip.AddrPort{}, failed.report(rec)
		}
		q.Avoid = append(slices.Clip(q.Avoid), culprit(why, target))
	}
}

// failure is what a connection is refused for after several attempts.
type failure struct {
	rec flow.Record
	why *Refusal
}

func (f *failure) add(rec flow.Record, why *Refusal) {
	if f.why == nil || why.judged && !f.why.judged {
		f.rec, f.why = rec, why
	}
}

func (f *failure) report(rec *flow.Record) *Refusal {
	*rec = f.rec
	return f.why
}

// choose resolves q, and passes over endpoints that failed a short while ago
// as long as there are others. A connection tries no more than one of those
// whose time is over, so that all of its attempts cannot go to them.
func (p *Proxy) choose(q resolve.Query, workload string) (resolve.Target, resolve.Verdict) {
	first, verdict := p.cfg.Mesh.Resolve(q)
	if verdict != resolve.Found || first.Service == "" {
		return first, verdict
	}
	target, try := first, len(q.Avoid) == 0
	for range sidesteps {
		bad, ok := p.avoid.passes(workload, q.Protocol, target, try)
		if !ok {
			target.Others = target.Others || target != first
			return target, resolve.Found
		}
		q.Avoid = append(slices.Clip(q.Avoid), bad)
		if target, verdict = p.cfg.Mesh.Resolve(q); verdict != resolve.Found {
			break
		}
	}
	return first, resolve.Found // one that failed is better than none
}

// attempt gets a tunnel to target and judges it for this connection.
func (p *Proxy) attempt(ctx context.Context, pod *LocalPod, proto resolve.Protocol, target resolve.Target, left int, rec *flow.Record) (*tunnel.Lease, *Refusal) {
	if target.Service != "" {
		rec.Service, rec.Endpoint = target.Service, target.Pod
	}
	if proto == resolve.TCP && p.sameNode(target) {
		_, _, why := p.neighbours(pod, rec, target.Pod)
		return nil, why
	}
	lease, why := p.lease(ctx, tunnel.Key{Src: rec.Src.Addr(), Dst: target.Pod.Addr(), Node: target.Node, Owner: pod.UID}, left)
	if why != nil {
		return nil, why
	}
	h := tunnel.Header{Proto: uint8(proto), Src: rec.Src, Dst: target.Pod}
	lease.Tunnel.Reserve(h)
	meta := lease.Meta.Peer.(*outboundPeer)
	rec.SrcID, rec.DstID, rec.DstWorkload = meta.self.ID, meta.peer.id, meta.peer.facts.Workload
	rec.PeerMeasurement = meta.peer.facts.Measurement
	if why := p.judgeOutbound(pod, meta, h); why != nil {
		p.pool.Put(lease)
		return nil, why
	}
	return lease, nil
}

// judgeOutbound asks about a tunnel that exists whether it may carry a
// connection as h is. What is refused about the peer may be otherwise with
// another; what is refused about this side may not.
func (p *Proxy) judgeOutbound(pod *LocalPod, meta *outboundPeer, h tunnel.Header) *Refusal {
	if why := p.denied(&meta.self.Holder); why != nil {
		return why
	}
	why := p.acceptPeer(meta.peer)
	if why == nil {
		why = p.allowed(pod.Workload, meta.peer.facts.Workload, h)
	}
	return why.aboutPeer()
}

// lease waits for a tunnel, no longer than its share of the time when there
// are left attempts.
func (p *Proxy) lease(ctx context.Context, key tunnel.Key, left int) (*tunnel.Lease, *Refusal) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	lease, err := p.pool.Get(ctx, key)
	if err == nil {
		return lease, nil
	}
	return nil, dialRefusal(err)
}

// culprit is what to avoid after why: a node that does not answer fails for
// all its pods.
func culprit(why *Refusal, target resolve.Target) netip.Addr {
	if why.ofNode() {
		return target.Node
	}
	return target.Pod.Addr()
}

// passOver remembers that target failed while there are others, and says so
// once for each episode.
func (p *Proxy) passOver(pod *LocalPod, proto resolve.Protocol, target resolve.Target, rec flow.Record, why *Refusal) {
	if target.Service == "" {
		return
	}
	keys := keysOf(pod.Workload, proto, target)
	key := keys[2]
	if why.ofNode() {
		key = keys[1]
	}
	if !p.avoid.failed(key, why) {
		return
	}
	rec.Time, rec.Verdict = p.cfg.Now(), flow.Avoided
	rec.Reason, rec.Rule, rec.Expected, rec.Actual = string(why.Code), why.Rule, why.Expected, why.Actual
	p.cfg.Flows.Add(rec)
	p.cfg.Log.Warn("an endpoint is passed over for a while", "service", target.Service, "endpoint", target.Pod, "node", target.Node,
		"workload", pod.Workload, "reason", why.Code, "err", why)
}

// works ends the time in which target is passed over.
func (p *Proxy) works(pod *LocalPod, proto resolve.Protocol, target resolve.Target) {
	if n := p.avoid.works(pod.Workload, proto, target); n > 0 {
		p.cfg.Log.Info("an endpoint that was passed over works again", "service", target.Service, "endpoint", target.Pod, "node", target.Node, "failures", n)
	}
}

// unresolved is the refusal of a destination that means no pod.
func unresolved(v resolve.Verdict, dst netip.AddrPort, service string) *Refusal {
	why := noPod(v, dst, service)
	why.verdict = v
	return why
}

func noPod(v resolve.Verdict, dst netip.AddrPort, service string) *Refusal {
	const rule = "routes"
	switch v {
	case resolve.HostAddress, resolve.HostService:
		return refuse(reasonHostAddress, rule, "the address of a pod of the mesh", dst.String()+", where nodes' own programs are")
	case resolve.NoEndpoints:
		return refuse(reasonNoEndpoints, rule, "a pod of the mesh behind service "+service, "none that can be used from here")
	case resolve.NoServicePort:
		return refuse(reasonNoServicePort, rule, "a port of the service", dst.String())
	case resolve.ExternalAddress:
		return refuse(reasonExternalAddress, rule, "a cluster address of a service", dst.Addr().String()+", which is for clients outside of the cluster")
	default:
		return refuse(reasonNoRoute, rule, "the address of a pod of the mesh", dst.Addr().String())
	}
}
