// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/policy"
)

// State is where a pod stands on its way from a bare link to the mesh.
// Only StateOpen lets a packet out of the pod.
type State string

// The states, in the order a pod passes through them.
const (
	StateSeen     State = "seen"     // a source named the pod
	StateLocked   State = "locked"   // deny-all programs hold its link
	StateAdmitted State = "admitted" // the manifest lists it
	StateEnrolled State = "enrolled" // it has a certificate
	StateOpen     State = "open"     // its traffic is steered into the mesh
	StateClosed   State = "closed"   // gone
)

// Status is what `c8s status` shows.
type Status struct {
	Node      NodeStatus        `json:"node"`
	Manifest  ManifestStatus    `json:"manifest"`
	DenyList  *DenyListStatus   `json:"denyList,omitempty"` // absent while there never was one
	Pods      []PodStatus       `json:"pods"`
	Refused   []nri.Refused     `json:"refused,omitempty"` // containers that may not start
	Drops     map[string]uint64 `json:"drops"`             // packets refused by the kernel, by reason
	Restored  RestoredStatus    `json:"restored"`          // what others took from the lock
	Tunnels   TunnelStatus      `json:"tunnels"`
	UDP       UDPStatus         `json:"udp"`
	Routes    RoutesStatus      `json:"routes"`
	Avoided   []Avoided         `json:"avoided,omitempty"`   // endpoints and nodes that Services pass over
	DNS       *DNSStatus        `json:"dns,omitempty"`       // absent where the node answers no names
	Simulated bool              `json:"simulated"`           // the TEE is a development root
	Published []PublishedStatus `json:"published,omitempty"` // ports of the node that entries of its pods publish
}

// NodeStatus describes the node's own credential.
type NodeStatus struct {
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"` // SPIFFE ID; empty while not enrolled
	Address  string    `json:"address"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	Error    string    `json:"error,omitempty"` // why the last enrolment failed
	Version  string    `json:"version"`
	Instance string    `json:"instance,omitempty"` // which process of the node answers
	NotReady string    `json:"notReady,omitempty"` // why the node cannot take pods
	LSM      string    `json:"lsm"`                // the hardening by the kernel's security hooks: "active", or why not
}

// UDPStatus counts flows of UDP and their datagrams.
type UDPStatus struct {
	Out int `json:"out"` // flows of pods
	In  int `json:"in"`  // flows to pods
	// Datagrams, added when their flow ends; Refused at once.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	Dropped  uint64 `json:"dropped"`
	Refused  uint64 `json:"refused"`
}

// ManifestStatus names the manifest in force.
type ManifestStatus struct {
	TrustDomain string        `json:"trustDomain"`
	Version     uint64        `json:"version"`
	Digest      policy.Digest `json:"digest"`
}

// DenyListStatus names the deny list in force.
type DenyListStatus struct {
	Version uint64        `json:"version"`
	Digest  policy.Digest `json:"digest"`
	Entries int           `json:"entries"`
}

// PodStatus describes one pod.
type PodStatus struct {
	Pod      string       `json:"pod"`
	UID      string       `json:"uid"`
	Addrs    []netip.Addr `json:"addresses"`
	State    State        `json:"state"`
	Workload string       `json:"workload,omitempty"`
	ID       string       `json:"id,omitempty"`
	NotAfter time.Time    `json:"notAfter,omitzero"`
	Reason   string       `json:"reason,omitempty"` // stable code of what holds it back
	Detail   string       `json:"detail,omitempty"`
}

// PublishedStatus describes a port of the node for clients outside the mesh.
type PublishedStatus struct {
	HostPort uint16 `json:"hostPort"`
	Pods     int    `json:"pods"`            // of this node that publish it
	Error    string `json:"error,omitempty"` // why it is not open, or not in both families
}

// RestoredStatus counts what somebody took from the lock in the kernel, and this
// daemon put back. Anything but zero is worth a look at who did.
type RestoredStatus struct {
	Pins     uint64 `json:"pins"`
	Programs uint64 `json:"programs"`
}

// TunnelStatus counts the tunnels of this node.
type TunnelStatus struct {
	Idle       int    `json:"idle"`
	Busy       int    `json:"busy"`
	Inbound    int    `json:"inbound"`
	Handshakes uint64 `json:"handshakes"`
	Streams    uint64 `json:"streams"`
}

// Avoided is a node, or an endpoint on it, that failed and that Services pass
// over for a while.
type Avoided = datapath.Avoided

// RoutesStatus says what the node knows about where pods are.
type RoutesStatus struct {
	Static    int            `json:"static"` // prefixes of the routes file
	Nodes     int            `json:"nodes"`
	Pods      int            `json:"pods"`
	Services  int            `json:"services"`
	Endpoints int            `json:"endpoints"`
	Ignored   int            `json:"ignored"`           // things the cluster said that make no sense
	Cluster   *ClusterStatus `json:"cluster,omitempty"` // absent with static routes alone
}

// ClusterStatus says how old the cluster's word is.
type ClusterStatus struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"` // when it last changed; zero: it never was
}
