// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// Resolver answers the DNS queries of pods.
type Resolver interface {
	// Answer answers one query of a pod; nil: no answer is sent. Most answers are
	// there at once; one that the node must ask others for takes seconds at worst.
	Answer(ctx context.Context, asker Asker, query []byte, tcp bool) []byte
}

// Asker is the pod that asks, and where it thought to ask.
type Asker struct {
	UID      string // of the pod
	Name     string // namespace/name
	Workload string
	Addr     netip.Addr
	Port     uint16
	Server   netip.AddrPort // the message's destination
}

func askerOf(pod *LocalPod, src, dst netip.AddrPort) Asker {
	return Asker{UID: pod.UID, Name: pod.Name, Workload: pod.Workload, Addr: src.Addr(), Port: src.Port(), Server: dst}
}

const portDNS = 53

// asksNode reports whether q is a DNS query that the node answers itself,
// whatever address was asked: all are, except those that mean a pod of the
// mesh, or a Service of it other than the cluster's DNS.
func (p *Proxy) asksNode(q resolve.Query) bool {
	if p.cfg.DNS == nil || q.Dst.Port() != portDNS {
		return false
	}
	switch target, verdict := p.cfg.Mesh.Resolve(q); verdict {
	case resolve.Undecided, resolve.NoNode:
		return false
	case resolve.Found, resolve.NoEndpoints:
		return target.Service != "" && target.Service == p.cfg.DNSService
	}
	return true
}
