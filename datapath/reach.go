// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// attempts is how many endpoints of a Service one connection tries.
const attempts = 3

// reach gets a tunnel to the pod that rec.Dst means, and returns that pod. An
// endpoint that cannot be reached is replaced by another: nothing was read
// from the application yet.
func (p *Proxy) reach(ctx context.Context, pod *LocalPod, rec *flow.Record) (*tunnel.Lease, netip.AddrPort, *refusal) {
	// A handshake may take a while; nobody waits longer than this.
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.DialTimeout)
	defer cancel()
	q := resolve.Query{Protocol: resolve.TCP, Src: rec.Src.Addr(), Dst: rec.Dst}
	var failed *refusal
	for left := attempts; ; left-- {
		target, verdict := p.cfg.Mesh.Resolve(q)
		if verdict != resolve.Found {
			if failed == nil {
				rec.Service = target.Service
				failed = unresolved(verdict, rec.Dst, target.Service)
			}
			return nil, netip.AddrPort{}, failed
		}
		if target.Service != "" {
			rec.Service, rec.Endpoint = target.Service, target.Pod
		}
		last := !target.Others || left == 1
		if last {
			left = 1
		}
		lease, why := p.lease(ctx, tunnel.Key{Src: q.Src, Dst: target.Pod.Addr(), Node: target.Node, Owner: pod.UID}, left)
		if why == nil {
			return lease, target.Pod, nil
		}
		if last || ctx.Err() != nil || !elsewhere(why) {
			return nil, netip.AddrPort{}, why
		}
		failed = why
		q.Avoid = append(q.Avoid, culprit(why, target))
	}
}

// lease waits for a tunnel, no longer than its share of the time when there
// are left attempts.
func (p *Proxy) lease(ctx context.Context, key tunnel.Key, left int) (*tunnel.Lease, *refusal) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	lease, err := p.pool.Get(ctx, key)
	if err != nil {
		return nil, asRefusal(err)
	}
	return lease, nil
}

// elsewhere reports whether another endpoint may do better: the fault is not
// on this side, and it is not a verdict about the peer.
func elsewhere(why *refusal) bool {
	switch why.Code {
	case reasonNodeUnreachable, reasonNodeTimeout, reasonHandshake, reasonPeerRefused, reasonPeerAddress:
		return true
	}
	return false
}

// culprit is what to avoid after why: a node that does not answer fails for
// all its pods.
func culprit(why *refusal, target resolve.Target) netip.Addr {
	if why.Code == reasonNodeUnreachable || why.Code == reasonNodeTimeout {
		return target.Node
	}
	return target.Pod.Addr()
}

// unresolved is the refusal of a destination that means no pod.
func unresolved(v resolve.Verdict, dst netip.AddrPort, service string) *refusal {
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
