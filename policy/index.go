// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// index is what the connection path reads: built once by Parse, never
// written again.
type index struct {
	digest    Digest
	workloads map[string]*workloadIndex
	edges     map[edge]Decision
	roles     map[Role][]*substrateIndex
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
}

type substrateIndex struct {
	*Substrate
	path         string
	roots        map[Digest]struct{}
	measurements map[string]struct{}
	hostData     valuesOrAny
	machines     valuesOrAny
}

func newIndex(m *Manifest, digest Digest) *index {
	x := &index{
		digest: digest, workloads: make(map[string]*workloadIndex, len(m.Workloads)),
		edges: map[edge]Decision{}, roles: map[Role][]*substrateIndex{},
	}
	for i := range m.Workloads {
		w := &m.Workloads[i]
		wx := &workloadIndex{entry: w, path: workloadPath(w.Name), digest: w.Digest(), images: make(map[Digest]struct{}, len(w.Images))}
		for _, image := range w.Images {
			wx.images[image.Digest] = struct{}{}
		}
		x.workloads[w.Name] = wx
	}
	x.addEdges(m)
	for i := range m.Substrates {
		s := &m.Substrates[i]
		sx := &substrateIndex{
			Substrate: s, path: fmt.Sprintf("substrates[%s]", s.Name), roots: set(s.Roots), measurements: set(s.Measurements),
			hostData: newValuesOrAny(s.HostData), machines: newValuesOrAny(s.Machines),
		}
		for _, role := range s.Roles {
			x.roles[role] = append(x.roles[role], sx)
		}
	}
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

// valuesOrAny accepts nothing until it is told what, or told "any".
type valuesOrAny struct {
	any    bool
	values map[string]struct{}
}

func newValuesOrAny(list []string) valuesOrAny {
	if len(list) == 1 && list[0] == Any {
		return valuesOrAny{any: true}
	}
	return valuesOrAny{values: set(list)}
}

func (v valuesOrAny) has(s string) bool {
	if v.any {
		return true
	}
	_, ok := v.values[s]
	return ok
}
