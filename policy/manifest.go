// SPDX-License-Identifier: Apache-2.0

// Package policy is the operator's word: nothing is trusted that a manifest,
// signed by enough operators, does not name, and no value in a manifest means
// "do not check" unless it says so in a word.
//
// A Manifest comes only from Parse or Open, which refuse anything they do not
// understand completely; one built by hand answers every question with a
// refusal. All functions are pure: no I/O, no clock, no shared state, so a
// *Manifest may be read by any number of goroutines.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Schema is the only manifest schema this package reads.
const Schema = "c8s.dev/manifest/v1"

// PayloadType is the DSSE payload type of a manifest.
const PayloadType = "application/vnd.c8s.manifest.v1+json"

// Any is the word that says a list accepts every value.
const Any = "any"

// The protocols of rules.
const (
	ProtocolTCP = "tcp"
	ProtocolUDP = "udp"
)

// The words of Manifest.SameNode.
const (
	SameNodeMesh  = "mesh"
	SameNodeLocal = "local"
)

// Role is what a certificate's holder does in the mesh.
type Role string

// The roles. Workloads run on machines of the role node, or, as a virtual
// machine of their own, on substrates of the role workload.
const (
	RoleNode     Role = "node"
	RoleWorkload Role = "workload"
	RoleCDS      Role = "cds"
	RoleIngress  Role = "ingress"
)

// Digest is "sha256:" followed by 64 lower-case hexadecimal digits.
type Digest string

const digestPrefix = "sha256:"

// DigestOf returns the SHA-256 digest of b.
func DigestOf(b []byte) Digest {
	return DigestFrom(sha256.Sum256(b))
}

// DigestFrom spells a SHA-256 hash.
func DigestFrom(sum [sha256.Size]byte) Digest {
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// Valid reports whether d has the one accepted spelling.
func (d Digest) Valid() bool {
	s, ok := strings.CutPrefix(string(d), digestPrefix)
	return ok && isLowerHex(s, sha256.Size)
}

// isLowerHex reports whether s is exactly n bytes in lower-case hexadecimal:
// one spelling per value, so that comparing strings compares values.
func isLowerHex(s string, n int) bool {
	if len(s) != 2*n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Manifest is the policy of one trust domain.
type Manifest struct {
	Schema        string      `json:"schema"`                  // Schema
	TrustDomain   string      `json:"trustDomain"`             // SPIFFE trust domain name
	Version       uint64      `json:"version"`                 // from 1
	Previous      Digest      `json:"previous"`                // of the previous manifest's payload; empty only in version 1
	NotBefore     string      `json:"notBefore,omitempty"`     // RFC 3339, UTC, whole seconds: when it comes into force; empty: at once
	Production    bool        `json:"production"`              // refuses simulated substrates, debuggable guests and empty TCB floors
	Operators     Operators   `json:"operators"`               // who may sign the next manifest
	Recovery      *Recovery   `json:"recovery,omitempty"`      // who may bring the CDS's root secret back; nil: nobody
	Witnesses     []Witness   `json:"witnesses,omitempty"`     // whose cosignatures on the CDS's checkpoints count
	WitnessQuorum int         `json:"witnessQuorum,omitempty"` // how many must cosign before auditors call a checkpoint witnessed
	Signers       []Signer    `json:"signers,omitempty"`       // publishers of images
	Sandboxes     []Image     `json:"sandboxes,omitempty"`     // pause images, by digest; none: no pod starts on a node that enforces
	Unlisted      string      `json:"unlisted,omitempty"`      // running containers that are not admitted: UnlistedStop (also "") or UnlistedCut
	SameNode      string      `json:"sameNode,omitempty"`      // between pods of one node: SameNodeMesh (also ""), or SameNodeLocal: both are judged and nothing is encrypted
	Substrates    []Substrate `json:"substrates"`
	Workloads     []Workload  `json:"workloads"`

	Ingress []IngressRule `json:"ingress,omitempty"` // which hosts of an ingress lead to which workloads

	index *index // by Parse only: what has no index refuses
}

// Workload is one entry: which images may bear its name and whom they may
// talk to.
type Workload struct {
	Name        string   `json:"name"`       // DNS label; becomes spiffe://<trust domain>/workload/<name>
	Images      []Image  `json:"images"`     // every container must fit one of them
	Namespaces  []string `json:"namespaces"` // empty: every namespace. The control plane names namespaces, so this narrows and never protects
	Peers       Peers    `json:"peers"`
	HostAccess  bool     `json:"hostAccess"`            // processes on the node may connect to the pod, on every port
	Probes      []uint16 `json:"probes,omitempty"`      // TCP ports that the kubelet, and nothing else on the node, may connect to
	HostNetwork bool     `json:"hostNetwork,omitempty"` // pods share the node's network: they are not in the mesh and get no certificate
	Bootstrap   bool     `json:"bootstrap,omitempty"`   // pods may start without the node daemon; needs HostNetwork
	Exec        []Exec   `json:"exec,omitempty"`        // processes that may be added to running containers; none: no exec

	DNS      []string   `json:"dns,omitempty"`      // external names that its pods may resolve: "api.example.com", or "*.example.com" for all below it
	External []External `json:"external,omitempty"` // endpoints outside the mesh that its pods may connect to
	Publish  []Publish  `json:"publish,omitempty"`  // ports that the node opens for clients outside the mesh
}

// Image is one rule for containers: what they are made from, by digest or by
// signer, and what they may be started with. The name is for people only. A
// digest may stand in several rules with different Run.
type Image struct {
	Name       string   `json:"name"`
	Digest     Digest   `json:"digest,omitempty"`     // of the image's configuration, or:
	Signers    []string `json:"signers,omitempty"`    // any of these signed it
	Repository string   `json:"repository,omitempty"` // with signers: the repository that the signature must name; empty: any
	Run        *Run     `json:"run,omitempty"`        // nil: as the image says

	keys []Digest // of Signers, by Parse
}

// Peers are the connections of a workload. Both ends must agree: the opener's
// To and the acceptor's From.
type Peers struct {
	To   []PeerRule `json:"to"`
	From []PeerRule `json:"from"`
}

// PeerRule names another entry and the ports of the accepting side.
type PeerRule struct {
	Workload string   `json:"workload"`
	Ports    []uint16 `json:"ports"`
	Protocol string   `json:"protocol"` // ProtocolTCP or ProtocolUDP
}

// Workload returns the entry of that name. The entry is shared: do not write
// to it.
func (m *Manifest) Workload(name string) (*Workload, bool) {
	if m == nil || m.index == nil {
		return nil, false
	}
	w, ok := m.index.workloads[name]
	if !ok {
		return nil, false
	}
	return w.entry, true
}

// Digest returns the digest of the payload m was parsed from, or "" for a
// manifest that was not parsed.
func (m *Manifest) Digest() Digest {
	if m == nil || m.index == nil {
		return ""
	}
	return m.index.digest
}
