// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
	"strings"
)

// ServiceView is what names of a Service lead to. It belongs to a snapshot:
// nobody may change it. Names are lower case and valid in DNS.
type ServiceView struct {
	Addrs    []netip.Addr // cluster addresses; of a headless Service those of its endpoints, as far as they are ready
	Headless bool
	External string     // of an ExternalName Service: the name, without a final dot
	Ports    []PortView // for SRV
	Hosts    []HostView // of a headless Service all endpoints; of others those with a name of their own
}

// PortView is a port of a Service; its name may be empty.
type PortView struct {
	Name     string
	Protocol Protocol
	Port     uint16
	App      string // as in Port
}

// HostView is an endpoint under a name of its own: its host name, or its
// address with dashes.
type HostView struct {
	Name  string
	Addrs []netip.Addr
	Ports []uint16 // its own, as in ServiceView.Ports; 0: not on this one
}

type nameKey struct{ namespace, name string }

// hostName is a name below a Service's.
type hostName struct{ host, service string }

// Service returns what a Service's name leads to.
func (t *Table) Service(namespace, name string) (ServiceView, bool) {
	if v := t.cluster.Load().services[nameKey{namespace, name}]; v != nil {
		return *v, true
	}
	return ServiceView{}, false
}

// PodNamed reports whether a pod of the namespace has the address.
func (t *Table) PodNamed(namespace string, addr netip.Addr) bool {
	s := t.cluster.Load()
	o, ok := s.addrs[addr]
	return ok && o.node != nodeSelf && s.namespaces[o.namespace] == namespace
}

// NameOf returns the name of a Service's address, "svc.ns.svc", or of an
// endpoint of a headless one, "host.svc.ns.svc", without the cluster domain.
func (t *Table) NameOf(addr netip.Addr) (name string, ok bool) {
	s := t.cluster.Load()
	if service, ok := s.vips[addr]; ok {
		namespace, short, valid := split(service)
		return short + "." + namespace + ".svc", valid
	}
	h, ok := s.hosts[addr]
	if !ok {
		return "", false
	}
	namespace, short, ok := split(h.service)
	return h.host + "." + short + "." + namespace + ".svc", ok
}

// addView keeps what the name of s leads to.
func (b *builder) addView(s *Service, vips []netip.Addr) {
	namespace, name, ok := split(s.Name)
	key := nameKey{namespace, name}
	switch {
	case !ok || s.Alias != "" && !dnsName(s.Alias):
		b.report.ignore("service %s: its name, or what it stands for, is no name in DNS", s.Name)
		return
	case b.s.services[key] != nil:
		b.report.ignore("service %s: it is named twice", s.Name)
		return
	}
	v := &ServiceView{Addrs: vips, Headless: s.Headless && s.Alias == "", External: s.Alias}
	b.s.services[key] = v
	if s.Alias != "" {
		return
	}
	var ports []*Port
	for i := range s.Ports {
		p := &s.Ports[i]
		if _, ok := p.Protocol.index(); ok && p.Port > 0 && (p.Name == "" || label(p.Name)) {
			v.Ports = append(v.Ports, PortView{p.Name, p.Protocol, p.Port, p.App})
			ports = append(ports, p)
		} else if s.Headless && p.Port == 0 {
			ports = append(ports, p) // nothing for SRV, but its endpoints have names
		}
	}
	b.addHosts(s, v, ports)
}

// addHosts puts the endpoints that have names into v.
func (b *builder) addHosts(s *Service, v *ServiceView, ports []*Port) {
	var index map[string]int // most Services have no endpoints with names
	numbered := 0
	for _, p := range ports {
		i := numbered
		if p.Port > 0 {
			numbered++
		}
		all := p.Endpoints
		if most := b.room(); s.Headless && len(all) > most {
			b.report.ignore("service %s: %d endpoints, only %d are kept", s.Name, len(all), most)
			all = all[:most]
		}
		if s.Headless {
			b.report.Endpoints += len(all)
		}
		for j := range all {
			e := &all[j]
			name, a := e.Host, e.Addr.Addr()
			if e.Terminating || !usable(a) || !s.Headless && !label(name) {
				continue
			}
			if !label(name) {
				name = dashed(a)
			}
			at, ok := index[name]
			if !ok {
				if index == nil {
					index = map[string]int{}
				}
				at = len(v.Hosts)
				index[name] = at
				v.Hosts = append(v.Hosts, HostView{Name: name, Ports: make([]uint16, len(v.Ports))})
			}
			h := &v.Hosts[at]
			h.Addrs = append(h.Addrs, a)
			if p.Port > 0 {
				h.Ports[i] = e.Addr.Port()
			}
		}
	}
	slices.SortFunc(v.Hosts, func(x, y HostView) int { return strings.Compare(x.Name, y.Name) })
	for i := range v.Hosts {
		h := &v.Hosts[i]
		h.Addrs = distinct(h.Addrs)
		if !s.Headless {
			continue
		}
		v.Addrs = append(v.Addrs, h.Addrs...)
		for _, a := range h.Addrs {
			if _, taken := b.s.hosts[a]; !taken {
				b.s.hosts[a] = hostName{h.Name, s.Name}
			}
		}
	}
	if s.Headless {
		v.Addrs = distinct(v.Addrs)
	}
}

func distinct(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Clip(slices.Compact(addrs))
}

// dashed is the name of an endpoint that has no better one.
func dashed(a netip.Addr) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == ':' {
			return '-'
		}
		return r
	}, a.String())
}

// split takes namespace/name apart; ok: both can be labels in DNS.
func split(s string) (namespace, name string, ok bool) {
	namespace, name, _ = strings.Cut(s, "/")
	return namespace, name, label(namespace) && label(name)
}

// label reports whether s is a label as Kubernetes has them (RFC 1123, lower
// case).
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// dnsName reports whether s is a name of labels, without a final dot.
func dnsName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if !label(l) {
			return false
		}
	}
	return true
}
