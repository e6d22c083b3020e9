// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// The modes of backends.
const (
	ModeHTTP = "http" // requests of HTTP, which the ingress reads
	ModeTCP  = "tcp"  // a stream of bytes, by CONNECT
)

// IngressRule says where requests for some hosts may be sent. It is the
// operators' consent for both sides: no peer rule is needed beside it.
type IngressRule struct {
	Name     string           `json:"name"`     // DNS label
	Hosts    []string         `json:"hosts"`    // "bank.example", or "*.bank.example" for exactly one label more
	Backends []IngressBackend `json:"backends"` // all are trusted equally for all hosts
}

// IngressBackend is one workload that answers for the hosts of its rule.
type IngressBackend struct {
	Workload string   `json:"workload"`
	Mode     string   `json:"mode"`  // ModeHTTP or ModeTCP
	Ports    []uint16 `json:"ports"` // of the pod, TCP
}

// IngressHost finds the rule for a host: in lower case, without port and final
// dot. An exact name goes before a wildcard. Allowing allocates nothing.
func (m *Manifest) IngressHost(host string) (*IngressRule, Decision) {
	if m == nil || m.index == nil {
		return nil, undecided()
	}
	x := m.index.ingress.find(host)
	if x == nil {
		return nil, m.hostUnknown(host)
	}
	return x.rule, x.allowed
}

// IngressHosts lists the hosts of all rules as they are written, in the order
// of the manifest.
func (m *Manifest) IngressHosts() []string {
	if m == nil || m.index == nil {
		return nil
	}
	var hosts []string
	for i := range m.Ingress {
		hosts = append(hosts, m.Ingress[i].Hosts...)
	}
	return hosts
}

// IngressAllowed decides whether an ingress may send what was sent to the host
// to pods of this workload, on this port of theirs. The workload must be that of
// the pod's certificate. Allowing allocates nothing.
func (m *Manifest) IngressAllowed(host, workload, mode string, port uint16) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	x := m.index.ingress.find(host)
	if x == nil {
		return m.hostUnknown(host)
	}
	if d, ok := x.backends[backend{workload, mode, port}]; ok {
		return d
	}
	if _, ok := m.index.workloads[workload]; !ok {
		return unlisted(workload)
	}
	return x.refuse(workload, mode, port)
}

// IngressReaches decides whether an ingress may connect to pods of the workload
// on this port at all, whatever the host. Allowing allocates nothing.
func (m *Manifest) IngressReaches(workload string, port uint16) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	if d, ok := m.index.ingress.reached[reach{workload, port}]; ok {
		return d
	}
	if _, ok := m.index.workloads[workload]; !ok {
		return unlisted(workload)
	}
	if ports := m.ingressPorts(workload); len(ports) > 0 {
		return Decision{
			Code: CodeIngressPort, Rule: "ingress", Expected: "tcp " + joinPorts(ports), Actual: fmt.Sprint(port),
			Remedy: "add the port to a backend if clients outside the mesh should reach it",
		}
	}
	return Decision{
		Code: CodeIngressWorkload, Rule: "ingress", Expected: "a workload that is a backend of some rule", Actual: shorten(workload),
		Remedy: "add the workload to a rule if clients outside the mesh should reach it",
	}
}

// ingressIndex is what the connection path reads of all rules.
type ingressIndex struct {
	hosts   map[string]*ingressRuleIndex // with the leading dot for wildcards
	reached map[reach]Decision
}

type ingressRuleIndex struct {
	rule     *IngressRule
	allowed  Decision
	backends map[backend]Decision
}

// backend is one place that a rule allows.
type backend struct {
	workload, mode string
	port           uint16
}

type reach struct {
	workload string
	port     uint16
}

func indexIngress(rules []IngressRule) ingressIndex {
	x := ingressIndex{hosts: map[string]*ingressRuleIndex{}, reached: map[reach]Decision{}}
	for i := range rules {
		r := &rules[i]
		rx := &ingressRuleIndex{rule: r, allowed: allow(r.path()), backends: map[backend]Decision{}}
		for j := range r.Backends {
			b := &r.Backends[j]
			d := allow(fmt.Sprintf("%s.backends[%s]", r.path(), b.key()))
			for _, port := range b.Ports {
				rx.backends[backend{b.Workload, b.Mode, port}] = d
				if _, ok := x.reached[reach{b.Workload, port}]; !ok {
					x.reached[reach{b.Workload, port}] = d
				}
			}
		}
		for _, host := range r.Hosts {
			x.hosts[strings.TrimPrefix(host, "*")] = rx
		}
	}
	return x
}

// find: a wildcard stands for exactly one label, as in certificates (RFC 9525
// section 6.3).
func (x *ingressIndex) find(host string) *ingressRuleIndex {
	i := strings.IndexByte(host, '.')
	if i <= 0 { // also nothing that is spelled as a wildcard is
		return nil
	}
	if r, ok := x.hosts[host]; ok {
		return r
	}
	if !isLabel(host[:i]) {
		return nil
	}
	return x.hosts[host[i:]]
}

// refuse explains by the backend that came nearest.
func (x *ingressRuleIndex) refuse(workload, mode string, port uint16) Decision {
	d := Decision{
		Code: CodeIngressWorkload, Rule: x.allowed.Rule + ".backends", Expected: oneOf(x.rule.workloads()), Actual: shorten(workload),
		Remedy: "point the host's routes at one of these, or add the workload to the rule if it is trusted for the host",
	}
	for i := range x.rule.Backends {
		switch b := &x.rule.Backends[i]; {
		case b.Workload != workload:
		case b.Mode == mode:
			return Decision{
				Code: CodeIngressPort, Rule: fmt.Sprintf("%s.backends[%s].ports", x.allowed.Rule, b.key()), Expected: joinPorts(b.Ports), Actual: fmt.Sprint(port),
				Remedy: "add the port to the backend if it is meant",
			}
		default:
			d.Code, d.Expected, d.Actual = CodeIngressMode, workload+" by "+b.Mode, "by "+shorten(mode)
			d.Remedy = fmt.Sprintf("add a backend of mode %q for the workload if it is meant", shorten(mode))
		}
	}
	return d
}

func (m *Manifest) hostUnknown(host string) Decision {
	d := Decision{
		Code: CodeIngressHost, Rule: "ingress", Expected: "no host", Actual: shorten(host),
		Remedy: "add the host to a rule if the ingress should answer for it",
	}
	if hosts := m.IngressHosts(); len(hosts) > 0 {
		d.Expected = oneOf(hosts)
	}
	return d
}

// ingressPorts lists the workload's ports that some rule opens.
func (m *Manifest) ingressPorts(workload string) []uint16 {
	var ports []uint16
	for i := range m.Ingress {
		for _, b := range m.Ingress[i].Backends {
			if b.Workload == workload {
				ports = append(ports, b.Ports...)
			}
		}
	}
	return ports
}

func (r *IngressRule) path() string { return fmt.Sprintf("ingress[%s]", r.Name) }

func (r *IngressRule) workloads() []string {
	var names []string
	for i := range r.Backends {
		names = append(names, r.Backends[i].Workload)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// key names a backend among those of its rule.
func (b *IngressBackend) key() string { return b.Workload + "/" + b.Mode }
