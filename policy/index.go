// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// index is what the connection path reads: built once by Parse, never
// written again.
type index struct {
	digest    Digest
	workloads map[string]*workloadIndex
	edges     map[edge]Decision
	roles     roles
	carriers  []*substrateIndex // of workloads
	changes   []int64           // Unix seconds, ascending: when reference values expire
}

// edge is one allowed connection.
type edge struct {
	from, to string
	port     uint16
}

type workloadIndex struct {
	entry  *Workload
	path   string
	digest Digest
	images map[Digest]struct{}

	signers map[Digest]struct{} // ids of the keys
}

func newIndex(m *Manifest, digest Digest) *index {
	x := &index{
		digest: digest, workloads: make(map[string]*workloadIndex, len(m.Workloads)),
		edges: map[edge]Decision{}, roles: indexRoles(m.Substrates), changes: changesOf(m.Substrates),
	}
	for i := range m.Workloads {
		w := &m.Workloads[i]
		wx := &workloadIndex{entry: w, path: workloadPath(w.Name), digest: w.Digest(), images: make(map[Digest]struct{}, len(w.Images)), signers: map[Digest]struct{}{}}
		for i := range w.Images {
			if digest := w.Images[i].Digest; digest != "" {
				wx.images[digest] = struct{}{}
			}
			for _, id := range w.Images[i].keys {
				wx.signers[id] = struct{}{}
			}
		}
		x.workloads[w.Name] = wx
	}
	x.carriers = x.roles.carriers()
	x.addEdges(m)
	return x
}

// addEdges keeps the connections that both ends allow.
func (x *index) addEdges(m *Manifest) {
	for i := range m.Workloads {
		from := &m.Workloads[i]
		for _, rule := range from.Peers.To {
			to := x.workloads[rule.Workload].entry
			back := findRule(to.Peers.From, from.Name)
			if back == nil {
				continue
			}
			d := allow(fmt.Sprintf("%s.peers.to[%s] and %s.peers.from[%s]", workloadPath(from.Name), to.Name, workloadPath(to.Name), from.Name))
			accepted := set(back.Ports)
			for _, port := range rule.Ports {
				if _, ok := accepted[port]; ok {
					x.edges[edge{from.Name, to.Name, port}] = d
				}
			}
		}
	}
}

func workloadPath(name string) string { return fmt.Sprintf("workloads[%s]", name) }

func findRule(rules []PeerRule, workload string) *PeerRule {
	for i := range rules {
		if rules[i].Workload == workload {
			return &rules[i]
		}
	}
	return nil
}

func set[T comparable](list []T) map[T]struct{} {
	s := make(map[T]struct{}, len(list))
	for _, v := range list {
		s[v] = struct{}{}
	}
	return s
}
