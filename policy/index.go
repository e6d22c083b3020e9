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
	ingress   ingressIndex
	changes   []int64 // Unix seconds, ascending: when reference values expire
}

// edge is one allowed connection.
type edge struct {
	from, to, protocol string
	port               uint16
}

type workloadIndex struct {
	entry  *Workload
	path   string
	digest Digest
	images map[Digest]struct{}

	signers map[Digest]struct{} // ids of the keys

	dns       nameSet
	resolves  Decision // what dns allows
	externals []externalIndex
	publishes map[uint16]*publishIndex
}

func newIndex(m *Manifest, digest Digest) *index {
	x := &index{
		digest: digest, workloads: make(map[string]*workloadIndex, len(m.Workloads)),
		edges: map[edge]Decision{}, roles: indexRoles(m.Substrates), changes: changesOf(m.Substrates), ingress: indexIngress(m.Ingress),
	}
	for i := range m.Workloads {
		w := &m.Workloads[i]
		wx := &workloadIndex{entry: w, path: workloadPath(w.Name), digest: w.Digest(), images: make(map[Digest]struct{}, len(w.Images)), signers: map[Digest]struct{}{}}
		wx.dns, wx.resolves = newNameSet(w.DNS), allow(wx.path+".dns")
		wx.externals, wx.publishes = indexExternals(wx.path, w.External), indexPublishes(wx.path, w.Publish)
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
			back := findRule(to.Peers.From, from.Name, rule.Protocol)
			if back == nil {
				continue
			}
			d := allow(fmt.Sprintf("%s.peers.to[%s] and %s.peers.from[%s]", workloadPath(from.Name), ruleKey(rule), workloadPath(to.Name), ruleKey(*back)))
			accepted := set(back.Ports)
			for _, port := range rule.Ports {
				if _, ok := accepted[port]; ok {
					x.edges[edge{from.Name, to.Name, rule.Protocol, port}] = d
				}
			}
		}
	}
}

func workloadPath(name string) string { return fmt.Sprintf("workloads[%s]", name) }

func findRule(rules []PeerRule, workload, protocol string) *PeerRule {
	for i := range rules {
		if rules[i].Workload == workload && rules[i].Protocol == protocol {
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
