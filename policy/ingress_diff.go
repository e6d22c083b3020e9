// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

func (d *differ) ingress(a, b []IngressRule) {
	keyed(d, "ingress", a, b, func(r IngressRule) string { return r.Name }, IngressRule.summary, func(path string, a, b IngressRule) {
		values(d, path+".hosts", a.Hosts, b.Hosts)
		keyed(d, path+".backends", a.Backends, b.Backends, func(b IngressBackend) string { return b.key() }, IngressBackend.summary,
			func(path string, a, b IngressBackend) { values(d, path+".ports", a.Ports, b.Ports) })
	})
}

func (r IngressRule) summary() string {
	backends := make([]string, len(r.Backends))
	for i, b := range r.Backends {
		backends[i] = b.summary()
	}
	return fmt.Sprintf("%s to %s", strings.Join(r.Hosts, ", "), strings.Join(backends, "; "))
}

func (b IngressBackend) summary() string {
	return fmt.Sprintf("%s by %s, ports %s", b.Workload, b.Mode, joinPorts(b.Ports))
}

// ingress asks, for each host that a rule answered for, what answers for it
// next: rules may be renamed, and a new exact name takes its host out of a
// wildcard.
func (a *impacts) ingress(prev, next *Manifest) {
	taken := map[string][]string{} // new exact names, by the wildcard they may be taken from
	for _, host := range next.IngressHosts() {
		if _, was := prev.index.ingress.hosts[host]; !was && host[0] != '*' {
			wildcard := "*" + host[strings.IndexByte(host, '.'):]
			taken[wildcard] = append(taken[wildcard], host)
		}
	}
	for i := range prev.Ingress {
		rule := &prev.Ingress[i]
		for _, host := range rule.Hosts {
			a.routed(rule, host, next.index.ingress.leads(host))
			for _, host := range taken[host] {
				a.routed(rule, host, next.index.ingress.find(host))
			}
		}
	}
}

// leads is find for a host as a rule writes it.
func (x *ingressIndex) leads(host string) *ingressRuleIndex {
	if suffix, wildcard := strings.CutPrefix(host, "*"); wildcard {
		return x.hosts[suffix]
	}
	return x.find(host)
}

// routed compares what a host led to with what it leads to.
func (a *impacts) routed(rule *IngressRule, host string, is *ingressRuleIndex) {
	at := fmt.Sprintf("%s.hosts[%s]", rule.path(), host)
	if is == nil {
		a.add(Impact{Path: at, Outcome: Stops, Before: rule.summary(), Why: "no rule has the host any more"})
		return
	}
	for _, b := range rule.Backends {
		gone := slices.DeleteFunc(slices.Clone(b.Ports), func(port uint16) bool {
			_, ok := is.backends[backend{b.Workload, b.Mode, port}]
			return ok
		})
		if len(gone) == 0 {
			continue
		}
		i := Impact{Path: fmt.Sprintf("%s.backends[%s]", at, b.key()), Outcome: Stops, Before: "ports " + joinPorts(gone), After: is.rule.path(), Why: "the host does not lead there any more"}
		if is.rule.Name == rule.Name { // the same for all its hosts
			i.Path, i.After = fmt.Sprintf("%s.backends[%s]", rule.path(), b.key()), ""
		}
		if !slices.ContainsFunc(a.list, func(o Impact) bool { return o.Path == i.Path }) {
			a.add(i)
		}
	}
}

func (l *linter) ingress() {
	serves := func(s Substrate) bool { return slices.Contains(s.Roles, RoleIngress) }
	i := slices.IndexFunc(l.m.Substrates, serves)
	switch {
	case len(l.m.Ingress) > 0 && i < 0:
		l.add(LintNoIngress, "ingress", SeverityWarning, "no substrate has the role ingress: nobody can serve these hosts", "add the role to the substrate of the machines that do")
	case len(l.m.Ingress) == 0 && i >= 0:
		l.add(LintNoIngressRule, substratePath(&l.m.Substrates[i])+".roles", SeverityInfo, "an ingress may run, and connect to no workload", "say under ingress which hosts lead where")
	}
	for i := range l.m.Ingress {
		rule := &l.m.Ingress[i]
		for _, host := range rule.Hosts {
			at := rule.path() + ".hosts[" + host + "]"
			if strings.HasPrefix(host, "*") {
				l.add(LintWildcardHost, at, SeverityInfo, "the ingress answers for every name one label below, and may want one certificate for all", "list the names that are meant")
			}
			l.wideName(at, host)
		}
		for _, b := range rule.Backends {
			l.add(LintIngressReaches, fmt.Sprintf("%s.backends[%s]", rule.path(), b.key()), SeverityInfo, fmt.Sprintf("clients outside the mesh reach %s: only the ingress proves itself to it", b.Workload), "have the workload ask who they are where that matters")
		}
	}
}
