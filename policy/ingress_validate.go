// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// What a manifest may list for ingresses. They bound what an index costs.
const (
	maxIngressRules = 256
	maxBackends     = 64 // of a rule
)

const wantHost = `a DNS name in lower case without a final dot, "bank.example", or "*.bank.example" for exactly one label more`

func (m *Manifest) validateIngress(r *report) {
	const path = "$.ingress"
	within(len(m.Ingress), maxIngressRules, path, r)
	workloads := make(map[string]*Workload, len(m.Workloads))
	for i := range m.Workloads {
		workloads[m.Workloads[i].Name] = &m.Workloads[i]
	}
	names, hosts := map[string]bool{}, map[string]string{}
	for i := range m.Ingress {
		rule, at := &m.Ingress[i], elementPath(path, i)
		checkLabel(rule.Name, at+".name", names, r)
		rule.validateHosts(at+".hosts", hosts, r)
		rule.validateBackends(at+".backends", workloads, r)
	}
}

// validateHosts: were a host in two rules, the order of the manifest would
// decide who answers for it.
func (x *IngressRule) validateHosts(path string, seen map[string]string, r *report) {
	needed(len(x.Hosts), path, "at least one host", "list the names that clients ask for", r)
	within(len(x.Hosts), maxEndpoints, path, r)
	for i, host := range x.Hosts {
		at := elementPath(path, i)
		if !isHost(host) {
			r.add(CodeNameInvalid, at, wantHost, quote(host), "")
		}
		if by, dup := seen[host]; dup {
			r.add(CodeValueDuplicate, at, "each host in one rule of the manifest, once", fmt.Sprintf("%s, which is in %q", quote(host), by), "put its backends into one rule")
		}
		seen[host] = x.Name
	}
}

func (x *IngressRule) validateBackends(path string, workloads map[string]*Workload, r *report) {
	needed(len(x.Backends), path, "at least one backend", "list the workloads that answer for the hosts", r)
	within(len(x.Backends), maxBackends, path, r)
	seen := map[string]bool{}
	for i := range x.Backends {
		b, at := &x.Backends[i], elementPath(path, i)
		switch w, ok := workloads[b.Workload]; {
		case !ok:
			r.add(CodeIngressBackend, at+".workload", "the name of a workload of this manifest", quote(b.Workload), "add the workload, or remove the backend")
		case w.HostNetwork:
			r.add(CodeIngressBackend, at+".workload", "a workload in the mesh", quote(b.Workload)+", whose pods are in the node's network", "an ingress connects only to pods that prove what they are")
		case seen[b.key()]:
			r.add(CodeValueDuplicate, at+".workload", "one backend for each workload and mode", quote(b.Workload), "put all ports into one backend")
		}
		seen[b.key()] = true
		checkWord(b.Mode, at+".mode", CodeModeUnknown, r, ModeHTTP, ModeTCP)
		needed(len(b.Ports), at+".ports", "at least one port", "list every port of the pod", r)
		within(len(b.Ports), maxEndpoints, at+".ports", r)
		each(b.Ports, at+".ports", r, func(port uint16, path string) { checkPort(port, path, r) })
	}
}

// isHost: as isDNSName, and every label as in certificates: without '_'.
func isHost(s string) bool { return isDNSName(s) && !strings.Contains(s, "_") }
