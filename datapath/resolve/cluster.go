// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"net/netip"
	"time"
)

// Cluster is what somebody says about pods, nodes and Services. None of it is
// believed: build leaves out what cannot be.
type Cluster struct {
	Nodes    []Node
	Pods     []Pod
	Services []Service
}

// Node is a node of the cluster.
type Node struct {
	Name  string
	Zone  string         // for hints; may be empty
	Addr  netip.Addr     // where its daemon listens for tunnels
	Addrs []netip.Addr   // all of its own addresses: none of them is a pod's
	Pods  []netip.Prefix // where its pods' addresses come from, for pods not listed
}

// Pod is a pod with addresses of its own, not one on its node's network.
type Pod struct {
	Name    string // namespace/name
	Addrs   []netip.Addr
	Node    string
	Leaving bool // being deleted: another pod with its address wins
}

// Service is a Service: one with cluster addresses, a headless one, or one that
// is another name.
type Service struct {
	Name     string // namespace/name
	VIPs     []netip.Addr
	Headless bool          // no address of its own: its name leads to its endpoints
	Alias    string        // the name that it stands for (ExternalName)
	External []netip.Addr  // addresses for clients outside: nothing of the mesh is reached at them
	Affinity time.Duration // connections of one source go to one endpoint, until none came for so long; 0: they do not
	Local    bool          // only endpoints of the asking node
	Ports    []Port
}

// Port is a port of a Service and what stands behind it. A headless Service
// without ports has one without a number.
type Port struct {
	Name      string
	Protocol  Protocol
	Port      uint16
	App       string // what it speaks, as its Service says (appProtocol); may be empty
	Endpoints []Endpoint
}

// Endpoint is a pod's address and its own port. Not-ready ones are not listed.
type Endpoint struct {
	Addr        netip.AddrPort
	Node        string
	Host        string // the name of its own below a Service's; usually empty
	Terminating bool   // still answers; used when no other does, and never by name
	Hints       *Hints // nil: none. Endpoints may share them
}

// Hints say from where an endpoint should be used.
type Hints struct{ Zones, Nodes []string }

// Limits of a table, so that nobody can fill a node's memory with it. A real
// cluster ends at 5,000 nodes and 150,000 pods.
const (
	MaxNodes     = 20_000
	MaxPods      = 300_000
	MaxServices  = 50_000
	MaxEndpoints = 1_000_000 // of all ports of all Services
	maxPerPort   = 10_000    // endpoints of one port
)

// Report says what a table was made of.
type Report struct {
	Nodes, Pods, Services, Endpoints int
	Ignored                          int      // things that make no sense
	Examples                         []string // the first few of them, for people
}

const maxExamples = 5

func (r *Report) ignore(format string, args ...any) {
	r.Ignored++
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// usable reports whether addr can be that of a pod, a node or a Service at all.
func usable(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.Is4In6() && addr.Zone() == ""
}
