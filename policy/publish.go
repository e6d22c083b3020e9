// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
)

// TunnelPort is where the node daemons accept tunnels: no entry may publish it.
const TunnelPort = 15008

// Publish opens a port of the node for clients outside the mesh.
type Publish struct {
	Port     uint16   `json:"port"`     // of the pod, TCP
	HostPort uint16   `json:"hostPort"` // of the node
	From     []string `json:"from"`     // client prefixes, or ["any"]
}

// PublishAllowed decides whether a client outside the mesh may connect to pods
// of the entry through a port of their node. Allowing allocates nothing.
func (m *Manifest) PublishAllowed(workload string, hostPort uint16, client netip.Addr) (*Publish, Decision) {
	if m == nil || m.index == nil {
		return nil, undecided()
	}
	w, ok := m.index.workloads[workload]
	if !ok {
		return nil, unlisted(workload)
	}
	client = client.Unmap()
	x, ok := w.publishes[hostPort]
	if !ok {
		return nil, Decision{
			Code: CodePublishNotAllowed, Rule: w.path + ".publish", Expected: w.published(), Actual: fmt.Sprint(hostPort),
			Remedy: "publish the port in the entry if clients outside the mesh should reach it",
		}
	}
	if client.IsValid() && x.accepts(client) {
		return x.entry, x.allowed
	}
	return nil, Decision{
		Code: CodePublishClient, Rule: x.allowed.Rule + ".from", Expected: oneOf(x.entry.From), Actual: client.String(),
		Remedy: "add the client's prefix to the rule if it is meant",
	}
}

type publishIndex struct {
	entry   *Publish
	allowed Decision
	any     bool
	from    []netip.Prefix
}

func (x *publishIndex) accepts(client netip.Addr) bool {
	for _, p := range x.from {
		if p.Contains(client) {
			return true
		}
	}
	return x.any
}

func indexPublishes(path string, rules []Publish) map[uint16]*publishIndex {
	m := make(map[uint16]*publishIndex, len(rules))
	for i := range rules {
		p := &rules[i]
		x := &publishIndex{entry: p, allowed: allow(fmt.Sprintf("%s.publish[%d]", path, p.HostPort)), any: isAny(p.From)}
		for _, text := range p.From {
			if prefix, ok := parseCIDR(text); ok {
				x.from = append(x.from, prefix)
			}
		}
		m[p.HostPort] = x
	}
	return m
}

func (w *workloadIndex) published() string {
	ports := make([]uint16, len(w.entry.Publish))
	for i, p := range w.entry.Publish {
		ports[i] = p.HostPort
	}
	if len(ports) == 0 {
		return "no published port"
	}
	return "a published port: " + joinPorts(ports)
}
