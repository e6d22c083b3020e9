// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
)

// What one entry may list. They bound what a decision and its refusal cost.
const (
	maxDNS       = 1024 // names of an entry
	maxExternals = 128  // rules of an entry
	maxEndpoints = 256  // CIDRs, names, ports or SNI names of one rule
	maxPublishes = 64   // ports of an entry
)

const (
	wantDNSName = `a DNS name in lower case without a final dot, "api.example.com", or "*.example.com" for all below it`
	wantCIDR    = `a prefix in its shortest spelling, "192.0.2.0/24" or "2001:db8::/32", with no bit set behind it`
)

func checkNames(list []string, path string, r *report) {
	within(len(list), maxEndpoints, path, r)
	each(list, path, r, func(name, path string) { checkDNSName(name, path, r) })
}

func checkDNSName(name, path string, r *report) {
	if !isDNSName(name) {
		r.add(CodeNameInvalid, path, wantDNSName, quote(name), "")
	}
}

func checkCIDR(text, path string, r *report) {
	if _, ok := parseCIDR(text); !ok {
		r.add(CodeCIDRInvalid, path, wantCIDR, quote(text), "a single address has /32 or /128")
	}
}

// within refuses a list that is too long to be judged at every connection.
func within(n, limit int, path string, r *report) {
	if n > limit {
		r.add(CodeListTooLong, path, fmt.Sprintf("at most %d elements", limit), strconv.Itoa(n), "")
	}
}

func (w *Workload) validateOutside(path string, hostPorts map[uint16]string, r *report) {
	at := func(key string) string { return memberPath(path, key) }
	if w.HostNetwork && len(w.DNS)+len(w.External)+len(w.Publish) > 0 {
		r.add(CodeHostNetworkRules, at("hostNetwork"), "no dns, external and publish beside it", "some", "pods in the node's network are not in the mesh: nothing holds them back")
	}
	within(len(w.DNS), maxDNS, at("dns"), r)
	each(w.DNS, at("dns"), r, func(name, path string) { checkDNSName(name, path, r) })
	within(len(w.External), maxExternals, at("external"), r)
	names := map[string]bool{}
	for i := range w.External {
		w.External[i].validate(elementPath(at("external"), i), names, r)
	}
	within(len(w.Publish), maxPublishes, at("publish"), r)
	for i := range w.Publish {
		w.Publish[i].validate(elementPath(at("publish"), i), w.Name, hostPorts, r)
	}
}

func (e *External) validate(path string, seen map[string]bool, r *report) {
	at := func(key string) string { return memberPath(path, key) }
	checkLabel(e.Name, at("name"), seen, r)
	if (len(e.CIDRs) > 0) == (len(e.Names) > 0) {
		r.add(CodeExternalInvalid, path, "exactly one of cidrs and names", "both or none", "write two rules")
	}
	within(len(e.CIDRs), maxEndpoints, at("cidrs"), r)
	each(e.CIDRs, at("cidrs"), r, func(text, path string) { checkCIDR(text, path, r) })
	checkNames(e.Names, at("names"), r)
	needed(len(e.Ports), at("ports"), "at least one port", "list every port of the endpoint", r)
	within(len(e.Ports), maxEndpoints, at("ports"), r)
	each(e.Ports, at("ports"), r, func(port uint16, path string) { checkPort(port, path, r) })
	checkProtocol(e.Protocol, at("protocol"), r)
	if e.Protocol != ProtocolTCP && e.WantsHello() {
		r.add(CodeExternalInvalid, path, "tls and sni only with protocol "+ProtocolTCP, quote(e.Protocol), "what UDP carries is not looked into")
	}
	checkNames(e.SNI, at("sni"), r)
}

func (p *Publish) validate(path, workload string, hostPorts map[uint16]string, r *report) {
	at := func(key string) string { return memberPath(path, key) }
	checkPort(p.Port, at("port"), r)
	checkPort(p.HostPort, at("hostPort"), r)
	if p.HostPort == TunnelPort {
		r.add(CodePortInvalid, at("hostPort"), "a port that is free on every node", strconv.Itoa(TunnelPort)+", the port of the mesh's tunnels", "take another one")
	}
	if by, dup := hostPorts[p.HostPort]; dup {
		r.add(CodeValueDuplicate, at("hostPort"), "each hostPort once in the manifest", fmt.Sprintf("%d, which %q publishes", p.HostPort, by), "take another one: two entries may meet on one node")
	}
	hostPorts[p.HostPort] = workload
	within(len(p.From), maxEndpoints, at("from"), r)
	checkAny(p.From, "prefixes of clients", at("from"), r, func(text, path string) { checkCIDR(text, path, r) })
}

func checkProtocol(protocol, path string, r *report) {
	checkWord(protocol, path, CodeProtocolUnknown, r, ProtocolTCP, ProtocolUDP)
}
