// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
)

const (
	// clusterTTL is how long pods may keep names of the cluster, and that there
	// is none, in seconds. It costs nothing to ask again.
	clusterTTL = 5
	// schema is the version of the Kubernetes DNS specification that is kept.
	schema = "1.1.0"
	// maxAliases bounds Services that stand for names of other Services.
	maxAliases = 4
)

// cluster answers names of the cluster (Kubernetes DNS specification). Names
// between a Service and the domain exist whether they lead anywhere or not
// (RFC 8020): which namespaces there are is nobody's business.
func (s *Server) cluster(ctx context.Context, asker datapath.Asker, pod *pod, q *query, rel string) *reply {
	r := &reply{result: FromCluster, own: true}
	if rel == "" {
		if q.qtype == miekg.TypeSOA {
			r.answer = []miekg.RR{s.zone()}
			return r
		}
		return r.noData(s.zone())
	}
	if !plain(q.name) {
		return r.absent(s.zone())
	}
	if rel == "dns-version" {
		return s.version(r, q)
	}
	labels := strings.Split(rel, ".")
	depth := len(labels) - 1
	switch labels[depth] {
	case "svc":
		if depth <= 1 {
			return r.noData(s.zone())
		}
		return s.service(ctx, asker, pod, r, q, labels[:depth])
	case "pod":
		if depth <= 1 {
			return r.noData(s.zone())
		}
		return s.podName(r, q, labels[:depth])
	}
	return r.absent(s.zone())
}

func (s *Server) zone() *miekg.SOA { return soa(s.domain, clusterTTL) }

func (s *Server) version(r *reply, q *query) *reply {
	if q.qtype != miekg.TypeTXT {
		return r.noData(s.zone())
	}
	r.answer = []miekg.RR{&miekg.TXT{Hdr: header(q.owner(), miekg.TypeTXT, clusterTTL), Txt: []string{schema}}}
	return r
}

// owner is the name of the record that answers q: as the pod wrote it.
func (q *query) owner() string { return q.asked[0].Name }

// service answers names below "svc": service.namespace, host.service.namespace
// and _port._protocol.service.namespace.
func (s *Server) service(ctx context.Context, asker datapath.Asker, pod *pod, r *reply, q *query, labels []string) *reply {
	n := len(labels)
	view, ok := s.cfg.Cluster.Service(labels[n-1], labels[n-2])
	if !ok {
		return r.absent(s.zone())
	}
	if view.External != "" {
		if n > 2 {
			return r.absent(s.zone())
		}
		return s.alias(ctx, asker, pod, r, q, canonical(view.External))
	}
	base := strings.Join(labels[n-2:], ".") + ".svc." + s.domain + "."
	switch {
	case n == 2:
		if view.Headless && len(view.Addrs) == 0 {
			return r.absent(s.zone()) // section 2.4.1: nobody is ready
		}
		return s.addresses(r, q, view.Addrs)
	case n == 3 && (labels[0] == "_tcp" || labels[0] == "_udp"):
		return r.noData(s.zone())
	case n == 3:
		return s.host(r, q, view, labels[0])
	case n == 4 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"):
		return s.ports(r, q, view, labels[0][1:], labels[1][1:], base)
	}
	return r.absent(s.zone())
}

// addresses answers a name that has these addresses.
func (s *Server) addresses(r *reply, q *query, addrs []netip.Addr) *reply {
	for _, a := range addrs {
		if rr := address(q.owner(), q.qtype, a, clusterTTL); rr != nil {
			r.answer = append(r.answer, rr)
		}
	}
	if len(r.answer) == 0 {
		return r.noData(s.zone())
	}
	return r
}

// address makes an A or AAAA record, nil where addr is none of that type.
func address(owner string, qtype uint16, addr netip.Addr, ttl uint32) miekg.RR {
	switch {
	case qtype == miekg.TypeA && addr.Is4():
		return &miekg.A{Hdr: header(owner, qtype, ttl), A: addr.AsSlice()}
	case qtype == miekg.TypeAAAA && addr.Is6():
		return &miekg.AAAA{Hdr: header(owner, qtype, ttl), AAAA: addr.AsSlice()}
	}
	return nil
}

// host answers an endpoint that has a name.
func (s *Server) host(r *reply, q *query, view resolve.ServiceView, label string) *reply {
	i, ok := slices.BinarySearchFunc(view.Hosts, label, func(h resolve.HostView, name string) int { return strings.Compare(h.Name, name) })
	if !ok {
		return r.absent(s.zone())
	}
	return s.addresses(r, q, view.Hosts[i].Addrs)
}

// ports answers SRV (sections 2.3.2 and 2.4.2): the Service itself, or each
// endpoint of a headless one, with its addresses beside it.
func (s *Server) ports(r *reply, q *query, view resolve.ServiceView, port, protocol, base string) *reply {
	i := slices.IndexFunc(view.Ports, func(p resolve.PortView) bool {
		return p.Name == port && p.Name != "" && p.Protocol.String() == protocol
	})
	if i < 0 {
		return r.absent(s.zone())
	}
	if q.qtype != miekg.TypeSRV {
		return r.noData(s.zone())
	}
	add := func(number uint16, target string, addrs []netip.Addr) {
		r.answer = append(r.answer, &miekg.SRV{
			Hdr: header(q.owner(), miekg.TypeSRV, clusterTTL), Priority: 0, Weight: 100, Port: number, Target: target,
		})
		for _, a := range addrs {
			r.beside = append(r.beside, address(target, addressType(a), a, clusterTTL))
		}
	}
	if !view.Headless {
		add(view.Ports[i].Port, base, view.Addrs)
		return r
	}
	for _, h := range view.Hosts {
		if h.Ports[i] != 0 {
			add(h.Ports[i], h.Name+"."+base, h.Addrs)
		}
	}
	if len(r.answer) == 0 {
		return r.absent(s.zone())
	}
	return r
}

func addressType(a netip.Addr) uint16 {
	if a.Is4() {
		return miekg.TypeA
	}
	return miekg.TypeAAAA
}

// alias answers an ExternalName Service: with the name that it stands for, and
// what that one is, where the pod may resolve it.
func (s *Server) alias(ctx context.Context, asker datapath.Asker, pod *pod, r *reply, q *query, target string) *reply {
	if q.hops++; q.hops > maxAliases || !plain(target) {
		return &reply{result: Failed, rcode: miekg.RcodeServerFailure}
	}
	cname := &miekg.CNAME{Hdr: header(q.owner(), miekg.TypeCNAME, clusterTTL), Target: target + "."}
	next := *q
	next.name, next.asked = target, []miekg.Question{{Name: target + ".", Qtype: q.qtype, Qclass: miekg.ClassINET}}
	var end *reply
	if rel, ok := below(target, s.domain); ok {
		end = s.cluster(ctx, asker, pod, &next, rel)
	} else {
		end = s.external(ctx, asker, pod, &next)
	}
	if end.rcode != miekg.RcodeSuccess && end.rcode != miekg.RcodeNameError {
		return end // a name that is refused is not even told
	}
	if q.qtype == miekg.TypeCNAME {
		r.answer = []miekg.RR{cname}
		return r
	}
	end.answer, end.own = append([]miekg.RR{cname}, end.answer...), true
	return end
}

// podName answers a-b-c-d.namespace below "pod".
func (s *Server) podName(r *reply, q *query, labels []string) *reply {
	addr, ok := dashed(labels[0])
	if len(labels) != 2 || !ok || !s.cfg.Cluster.PodNamed(labels[1], addr) {
		return r.absent(s.zone())
	}
	return s.addresses(r, q, []netip.Addr{addr})
}

// dashed reads an address with hyphens for its dots or colons. There is one
// way to write each.
func dashed(label string) (netip.Addr, bool) {
	sep := "."
	if strings.Count(label, "-") != 3 || strings.Contains(label, "--") {
		sep = ":"
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", sep))
	if err != nil || addr.Is4In6() {
		return netip.Addr{}, false
	}
	return addr, true
}
