// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// Session affinity's time-out: what the API fills in, and its longest.
const (
	defaultAffinity = 3 * time.Hour
	maxAffinity     = 24 * time.Hour
)

// serviceInfo is a Service before its endpoints are joined to it.
type serviceInfo struct {
	service resolve.Service // without Ports
	ports   []namedPort
}

type namedPort struct {
	name  string
	proto resolve.Protocol
	port  uint16
	app   string
}

// serviceOf keeps Services that have an address, are headless, or stand for
// another name.
func serviceOf(s *service) (serviceInfo, bool) {
	out := serviceInfo{service: resolve.Service{Name: named(s.Namespace, s.Name)}, ports: portsOf(s.Spec.Ports)}
	r, ips := &out.service, s.Spec.ClusterIPs
	if s.Spec.Type == "ExternalName" {
		r.Alias = strings.ToLower(strings.TrimSuffix(s.Spec.ExternalName, "."))
		return serviceInfo{service: *r}, r.Alias != "" && len(r.Alias) <= maxDNSName
	}
	r.Headless = len(ips) == 1 && ips[0] == "None"
	r.VIPs = addrs(len(ips), func(i int) string { return ips[i] })
	r.Local = s.Spec.InternalTrafficPolicy == "Local"
	if s.Spec.SessionAffinity == "ClientIP" {
		r.Affinity = defaultAffinity
		if n := s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds; n > 0 {
			r.Affinity = min(time.Duration(n)*time.Second, maxAffinity)
		}
	}
	external, balanced := s.Spec.ExternalIPs, s.Status.LoadBalancer.Ingress
	r.External = append(
		addrs(len(external), func(i int) string { return external[i] }),
		addrs(len(balanced), func(i int) string { return balanced[i].IP })...,
	)
	return out, len(r.VIPs) > 0 || r.Headless
}

// sliceInfo is one EndpointSlice.
type sliceInfo struct {
	service   string // namespace/name
	ports     []namedPort
	endpoints []endpointInfo
	hints     int // weight of what the endpoints do not share
}

type endpointInfo struct {
	addr        netip.Addr
	node        string
	host        string
	terminating bool
	hints       *resolve.Hints
}

// sliceOf keeps endpoints that may be used: ready ones, and those that
// terminate but still serve. That a Service publishes its pods before they are
// ready is in the conditions: its endpoints are said to be ready.
func sliceOf(s *endpointSlice) (sliceInfo, bool) {
	name := s.Labels[serviceLabel]
	out := sliceInfo{service: named(s.Namespace, name), ports: portsOf(s.Ports)}
	var last *resolve.Hints
	for i := range s.Endpoints[:min(len(s.Endpoints), maxEndpoints)] {
		e := &s.Endpoints[i]
		ready, terminating := is(e.Conditions.Ready, true), is(e.Conditions.Terminating, false)
		if !ready && (!terminating || !is(e.Conditions.Serving, true)) || len(e.Addresses) == 0 {
			continue
		}
		// Further addresses of an endpoint mean nothing (API reference).
		a, err := netip.ParseAddr(e.Addresses[0])
		if err != nil {
			continue
		}
		info := endpointInfo{addr: a, node: e.NodeName, terminating: !ready}
		if len(e.Hostname) <= maxLabel {
			info.host = e.Hostname
		}
		if h := hintsOf(&e.Hints); h != nil {
			if last == nil || !slices.Equal(last.Zones, h.Zones) || !slices.Equal(last.Nodes, h.Nodes) {
				last, out.hints = h, out.hints+1+(len(h.Zones)+len(h.Nodes))/4
			}
			info.hints = last
		}
		out.endpoints = append(out.endpoints, info)
	}
	// A headless Service may have no ports.
	return out, name != "" && (len(out.ports) > 0 || len(s.Ports) == 0)
}

func hintsOf(h *hints) *resolve.Hints {
	zones, nodes := hinted(h.ForZones, maxLabel), hinted(h.ForNodes, maxDNSName)
	if len(zones)+len(nodes) == 0 {
		return nil
	}
	return &resolve.Hints{Zones: zones, Nodes: nodes}
}

func hinted(all []hint, longest int) (names []string) {
	for _, h := range all[:min(len(all), maxHints)] {
		if h.Name != "" && len(h.Name) <= longest {
			names = append(names, h.Name)
		}
	}
	return names
}

func is(b *bool, absent bool) bool {
	if b == nil {
		return absent
	}
	return *b
}

// portKey is what a port of a Service and one of a slice are matched by: a
// slice holds the pods' own numbers.
type portKey struct {
	name  string
	proto resolve.Protocol
}

// join puts the endpoints of its slices behind each port of a Service, at most
// room of them.
func join(s serviceInfo, behind []sliceInfo, room int) (out resolve.Service, cut int) {
	out = s.service
	if out.Alias != "" {
		return out, 0
	}
	at := make(map[portKey]int, len(s.ports))
	for i, p := range s.ports {
		at[portKey{p.name, p.proto}] = i
		out.Ports = append(out.Ports, resolve.Port{Name: p.name, Protocol: p.proto, Port: p.port, App: p.app})
	}
	put := func(i int, slice *sliceInfo, port uint16) {
		fit := min(len(slice.endpoints), room)
		room, cut = room-fit, cut+len(slice.endpoints)-fit
		all := slices.Grow(out.Ports[i].Endpoints, fit)
		for _, e := range slice.endpoints[:fit] {
			all = append(all, resolve.Endpoint{Addr: netip.AddrPortFrom(e.addr, port), Node: e.node, Host: e.host, Terminating: e.terminating, Hints: e.hints})
		}
		out.Ports[i].Endpoints = all
	}
	if out.Headless && len(s.ports) == 0 {
		out.Ports = []resolve.Port{{}}
		for i := range behind {
			put(0, &behind[i], 0)
		}
		return out, cut
	}
	for i := range behind {
		for _, target := range behind[i].ports {
			if port, ok := at[portKey{target.name, target.proto}]; ok {
				put(port, &behind[i], target.port)
			}
		}
	}
	return out, cut
}
