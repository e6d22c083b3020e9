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
	maxName      = 600  // bytes of namespace/name
)

const serviceLabel = "kubernetes.io/service-name"

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

// tcpPorts keeps TCP ports, and the first of a name: names are unique in the API.
func tcpPorts(ports []wirePort) (out []namedPort) {
	for _, p := range ports[:min(len(ports), maxPorts)] {
		twice := slices.ContainsFunc(out, func(q namedPort) bool { return q.name == p.Name })
		if p.Protocol == "TCP" && p.Port > 0 && p.Port <= 65535 && !twice {
			out = append(out, namedPort{p.Name, uint16(p.Port)})
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

// serviceInfo is a Service before its endpoints are joined to it.
type serviceInfo struct {
	service resolve.Service // without Ports
	ports   []namedPort
}

type namedPort struct {
	name string
	port uint16
}

// serviceOf keeps Services that have an address and TCP ports.
func serviceOf(s *service) (serviceInfo, bool) {
	out := serviceInfo{service: resolve.Service{
		Name:     named(s.Namespace, s.Name),
		Affinity: s.Spec.SessionAffinity == "ClientIP",
		Local:    s.Spec.InternalTrafficPolicy == "Local",
		VIPs:     addrs(len(s.Spec.ClusterIPs), func(i int) string { return s.Spec.ClusterIPs[i] }),
	}}
	out.ports = tcpPorts(s.Spec.Ports)
	return out, s.Spec.Type != "ExternalName" && len(out.service.VIPs) > 0
}

// sliceInfo is one EndpointSlice.
type sliceInfo struct {
	service   string // namespace/name
	ports     []namedPort
	endpoints []endpointInfo
}

type endpointInfo struct {
	addr        netip.Addr
	node        string
	terminating bool
}

// sliceOf keeps endpoints that may be used: ready ones, and those that
// terminate but still serve.
func sliceOf(s *endpointSlice) (sliceInfo, bool) {
	name := s.Labels[serviceLabel]
	out := sliceInfo{service: named(s.Namespace, name), ports: tcpPorts(s.Ports)}
	for _, e := range s.Endpoints[:min(len(s.Endpoints), maxEndpoints)] {
		ready, terminating := is(e.Conditions.Ready, true), is(e.Conditions.Terminating, false)
		if !ready && (!terminating || !is(e.Conditions.Serving, true)) || len(e.Addresses) == 0 {
			continue
		}
		// Further addresses of an endpoint mean nothing (API reference).
		if a, err := netip.ParseAddr(e.Addresses[0]); err == nil {
			out.endpoints = append(out.endpoints, endpointInfo{a, e.NodeName, !ready})
		}
	}
	return out, name != "" && len(out.ports) > 0
}

func is(b *bool, absent bool) bool {
	if b == nil {
		return absent
	}
	return *b
}

// join puts the endpoints of its slices behind each port of a Service, at most
// room of them. Ports are matched by name: a slice holds the pods' own numbers.
func join(s serviceInfo, behind []sliceInfo, room int) (out resolve.Service, cut int) {
	out = s.service
	at := make(map[string]int, len(s.ports))
	for i, p := range s.ports {
		at[p.name] = i
		out.Ports = append(out.Ports, resolve.Port{Port: p.port})
	}
	for _, slice := range behind {
		for _, target := range slice.ports {
			i, ok := at[target.name]
			if !ok {
				continue
			}
			fit := min(len(slice.endpoints), room)
			room, cut = room-fit, cut+len(slice.endpoints)-fit
			for _, e := range slice.endpoints[:fit] {
				out.Ports[i].Endpoints = append(out.Ports[i].Endpoints, resolve.Endpoint{
					Addr: netip.AddrPortFrom(e.addr, target.port), Node: e.node, Terminating: e.terminating,
				})
			}
		}
	}
	return out, cut
}
