// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/netip"
	"slices"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// More than any real object has. What is beyond is cut off: an object is at
// most as large as the API server lets it be, and this one may lie.
const (
	maxAddrs     = 16   // of a pod, a node or a Service
	maxPorts     = 1000 // of a Service or a slice
	maxEndpoints = 1000 // of a slice (the API's own limit)
	maxHints     = 8    // of each kind, of an endpoint (the API's own limit)
	maxName      = 600  // bytes of namespace/name
	maxLabel     = 63   // bytes of what is a label in DNS
	maxDNSName   = 253
)

const (
	serviceLabel = "kubernetes.io/service-name"
	zoneLabel    = "topology.kubernetes.io/zone"
)

// named is namespace/name.
func named(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// addrs parses addresses and skips what is none ("None" of headless Services).
func addrs(n int, at func(int) string) (out []netip.Addr) {
	for i := range min(n, maxAddrs) {
		if a, err := netip.ParseAddr(at(i)); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// portsOf keeps TCP and UDP ports, and the first of a name and protocol: the API
// has no two.
func portsOf(ports []wirePort) (out []namedPort) {
	for _, p := range ports[:min(len(ports), maxPorts)] {
		q := namedPort{name: p.Name, port: uint16(p.Port)}
		if len(p.AppProtocol) <= maxDNSName {
			q.app = p.AppProtocol
		}
		switch p.Protocol {
		case "TCP":
			q.proto = resolve.TCP
		case "UDP":
			q.proto = resolve.UDP
		default:
			continue
		}
		twice := slices.ContainsFunc(out, func(o namedPort) bool { return o.name == q.name && o.proto == q.proto })
		if p.Port > 0 && p.Port <= 65535 && len(p.Name) <= maxLabel && !twice {
			out = append(out, q)
		}
	}
	return out
}

// podOf keeps pods that have an address of their own.
func podOf(p *pod) (resolve.Pod, bool) {
	if p.Spec.HostNetwork || p.Spec.NodeName == "" || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return resolve.Pod{}, false // a finished pod's address may be in use again
	}
	out := resolve.Pod{Name: named(p.Namespace, p.Name), Node: p.Spec.NodeName, Leaving: p.DeletionTimestamp != nil}
	ips := p.Status.PodIPs
	if len(ips) == 0 {
		ips = []podIP{{p.Status.PodIP}}
	}
	out.Addrs = addrs(len(ips), func(i int) string { return ips[i].IP })
	return out, len(out.Addrs) > 0
}

// nodeOf finds where a node's daemon listens: its first internal address, of
// the family of this node's if there is one.
func nodeOf(n *node, ipv4 bool) (resolve.Node, bool) {
	out := resolve.Node{Name: n.Name}
	if zone := n.Labels[zoneLabel]; len(zone) <= maxLabel { // as label values are
		out.Zone = zone
	}
	for _, a := range n.Status.Addresses[:min(len(n.Status.Addresses), maxAddrs)] {
		addr, err := netip.ParseAddr(a.Address)
		if err != nil {
			continue // host names
		}
		out.Addrs = append(out.Addrs, addr)
		if a.Type == "InternalIP" && (!out.Addr.IsValid() || out.Addr.Is4() != ipv4 && addr.Is4() == ipv4) {
			out.Addr = addr
		}
	}
	for _, c := range n.Spec.PodCIDRs[:min(len(n.Spec.PodCIDRs), maxAddrs)] {
		if p, err := netip.ParsePrefix(c); err == nil {
			out.Pods = append(out.Pods, p)
		}
	}
	return out, true
}
