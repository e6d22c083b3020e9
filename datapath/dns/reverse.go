// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"strconv"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

const (
	arpa4 = "in-addr.arpa"
	arpa6 = "ip6.arpa"
)

// reverse reads the address out of a name that asks for an address's name.
func reverse(name string) (netip.Addr, bool) {
	if rel, ok := below(name, arpa4); ok {
		return reverse4(strings.Split(rel, "."))
	}
	if rel, ok := below(name, arpa6); ok {
		return reverse6(strings.Split(rel, "."))
	}
	return netip.Addr{}, false
}

func reverse4(labels []string) (netip.Addr, bool) {
	var b [4]byte
	if len(labels) != len(b) {
		return netip.Addr{}, false
	}
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil || len(l) > 1 && l[0] == '0' {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

func reverse6(labels []string) (netip.Addr, bool) {
	var b [16]byte
	if len(labels) != 2*len(b) {
		return netip.Addr{}, false
	}
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (i % 2 * 4)
	}
	return netip.AddrFrom16(b), true
}

// reverse answers PTR for addresses of the cluster. Of others that cannot have
// a name outside there is none (RFC 6303); nil: the name is one outside.
func (s *Server) reverse(q *query, addr netip.Addr) *reply {
	r := &reply{result: FromCluster, own: true}
	zone := soa(arpa4, clusterTTL)
	if addr.Is6() {
		zone = soa(arpa6, clusterTTL)
	}
	name, ok := s.cfg.Cluster.NameOf(addr)
	switch {
	case ok && q.qtype == miekg.TypePTR:
		r.answer = []miekg.RR{&miekg.PTR{Hdr: header(q.owner(), miekg.TypePTR, clusterTTL), Ptr: name + "." + s.domain + "."}}
		return r
	case ok:
		return r.noData(zone)
	case !public(addr) || claimed(s.cfg.Cluster, addr):
		return r.absent(zone)
	}
	return nil
}

// claimed reports whether somebody says that addr is in the cluster: a pod, a
// node or a Service.
func claimed(c Cluster, addr netip.Addr) bool {
	_, verdict := c.Resolve(resolve.Query{Protocol: resolve.TCP, Dst: netip.AddrPortFrom(addr, portAny)})
	return verdict != resolve.NoRoute
}

// portAny is a port to ask the routing table with where the address matters.
const portAny = 1
