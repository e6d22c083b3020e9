// SPDX-License-Identifier: Apache-2.0

package resolve

import "net/netip"

// ServiceQuery asks for an endpoint behind a TCP port of a Service that is
// known by name. Session affinity does not count: who asks passes on what
// others send, and would be the only source there is.
type ServiceQuery struct {
	Namespace, Name string
	Port            uint16       // the Service's own number; 0: PortName says which
	PortName        string       // may be empty for the only one, without a name
	Avoid           []netip.Addr // as in Query
}

// Behind says which pod of a Service a connection goes to, also of a headless
// one. NoRoute: nobody knows the Service. HostService: it leads out of the
// mesh, or is another name.
func (t *Table) Behind(q ServiceQuery) (Target, Verdict) {
	s := t.cluster.Load()
	v := s.services[nameKey{q.Namespace, q.Name}]
	switch {
	case v == nil:
		return Target{}, NoRoute
	case v.External != "":
		return Target{Service: q.service()}, HostService
	}
	i := v.port(&q)
	switch {
	case i < 0:
		return Target{Service: q.service()}, NoServicePort
	case v.Headless:
		return t.headless(s, v, i, &q)
	}
	missing := NoEndpoints
	for _, vip := range v.Addrs {
		p := s.ports[0][netip.AddrPortFrom(vip, v.Ports[i].Port)]
		if p == nil {
			continue
		}
		e := random(p.endpoints[:p.near], &Query{Avoid: q.Avoid}, t.cfg.Rand)
		if e == nil {
			e = random(p.endpoints[p.near:], &Query{Avoid: q.Avoid}, t.cfg.Rand)
		}
		if e != nil {
			return Target{Pod: e.pod, Node: t.carrierOf(e), Service: p.service, Others: len(q.Avoid)+1 < len(p.endpoints)}, Found
		}
		if p.host && len(p.endpoints) == 0 {
			missing = HostService
		}
	}
	return Target{Service: q.service()}, missing
}

func (q *ServiceQuery) service() string { return q.Namespace + "/" + q.Name }

// port is the index of the port that q asks for; -1: there is none.
func (v *ServiceView) port(q *ServiceQuery) int {
	for i := range v.Ports {
		p := &v.Ports[i]
		if p.Protocol == TCP && (q.Port != 0 && p.Port == q.Port || q.Port == 0 && p.Name == q.PortName) {
			return i
		}
	}
	return -1
}

// headless picks an endpoint by its name: whoever has an address of its own
// below the Service is ready.
func (t *Table) headless(s *snapshot, v *ServiceView, i int, q *ServiceQuery) (Target, Verdict) {
	none := Target{Service: q.service()}
	n := uint64(len(v.Hosts))
	if n == 0 {
		return none, NoEndpoints
	}
	start := (t.cfg.Rand() >> 32) * n >> 32
	missing := NoEndpoints
	for k := range n {
		h := &v.Hosts[(start+k)%n]
		if h.Ports[i] == 0 {
			continue
		}
		for _, a := range h.Addrs {
			found, verdict := s.place(netip.AddrPortFrom(a, h.Ports[i]))
			switch {
			case verdict == HostAddress:
				missing = HostService
			case verdict != Found:
			case !(&endpoint{pod: found.Pod, node: found.Node}).in(q.Avoid):
				found.Node = t.carrierOf(&endpoint{pod: found.Pod, node: found.Node})
				found.Service, found.Others = q.service(), len(q.Avoid)+1 < len(v.Addrs)
				return found, Found
			}
		}
	}
	return none, missing
}

// carrierOf is the node of an endpoint: of this one the runtime knows, then
// static routes win.
func (t *Table) carrierOf(e *endpoint) netip.Addr {
	if t.cfg.Local(e.pod.Addr()) {
		return t.cfg.Node
	}
	if static, ok := t.static.Load().lookup(e.pod.Addr()); ok {
		return static
	}
	return e.node
}
