// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// outside compares what pods of the entry may reach outside the mesh, and who
// may reach them.
func (d *differ) outside(path string, a, b *Workload) {
	values(d, path+".dns", a.DNS, b.DNS)
	keyed(d, path+".external", a.External, b.External, func(e External) string { return e.Name }, External.summary, d.external)
	keyed(d, path+".publish", a.Publish, b.Publish, func(p Publish) string { return strconv.Itoa(int(p.HostPort)) }, Publish.summary,
		func(path string, a, b Publish) {
			d.value(path+".port", a.Port, b.Port, Changes)
			d.valuesOrAny(path+".from", a.From, b.From)
		})
}

func (d *differ) external(path string, a, b External) {
	values(d, path+".cidrs", a.CIDRs, b.CIDRs)
	values(d, path+".names", a.Names, b.Names)
	values(d, path+".ports", a.Ports, b.Ports)
	d.value(path+".protocol", a.Protocol, b.Protocol, Changes)
	d.demanded(path+".tls", a.WantsHello(), b.WantsHello())
	switch { // no list: every name
	case len(a.SNI) == 0 && len(b.SNI) > 0:
		d.add(path+".sni", "every name", oneOf(b.SNI), Narrows)
	case len(a.SNI) > 0 && len(b.SNI) == 0:
		d.add(path+".sni", oneOf(a.SNI), "every name", Widens)
	default:
		values(d, path+".sni", a.SNI, b.SNI)
	}
}

func (e External) summary() string {
	text := fmt.Sprintf("%s%s, ports %s/%s", strings.Join(e.CIDRs, ", "), strings.Join(e.Names, ", "), joinPorts(e.Ports), e.Protocol)
	switch {
	case len(e.SNI) > 0:
		text += ", TLS for " + oneOf(e.SNI)
	case e.TLS:
		text += ", TLS"
	}
	return text
}

func (p Publish) summary() string {
	return fmt.Sprintf("port %d as the node's port %d, from %s", p.Port, p.HostPort, strings.Join(p.From, ", "))
}

// outside: an existing connection ends when no rule allows it any more. Rules
// may overlap: one that is narrower is said even where another one still fits.
func (a *impacts) outside(path string, was, is *Workload) {
	d := &differ{}
	d.outside(path, was, is)
	for i := range d.changes {
		if d.changes[i].Effect == Changes {
			d.changes[i].Effect = Narrows
		}
	}
	a.narrower(d, "what it allowed outside the mesh is refused, unless another rule allows it")
}

func (l *linter) outside(path string, w *Workload) {
	for _, name := range w.DNS {
		l.wideName(path+".dns["+name+"]", name)
	}
	for i := range w.External {
		e := &w.External[i]
		at := fmt.Sprintf("%s.external[%s]", path, e.Name)
		for _, name := range e.Names {
			l.wideName(at+".names["+name+"]", name)
		}
		for _, text := range e.CIDRs {
			l.wideCIDR(at+".cidrs["+text+"]", text)
		}
	}
	for _, p := range w.Publish {
		if isAny(p.From) {
			l.add(LintPublished, fmt.Sprintf("%s.publish[%d].from", path, p.HostPort), SeverityInfo, "whoever reaches the node may connect to the pod without a certificate", "list the clients' prefixes")
		}
	}
}

// wideName: whoever may register a name below a public suffix is meant too.
func (l *linter) wideName(path, name string) {
	if strings.HasPrefix(name, "*.") && strings.Count(name, ".") == 1 {
		l.add(LintWideName, path, SeverityWarning, "anybody can have a name below it", "list the names that are meant")
	}
}

func (l *linter) wideCIDR(path, text string) {
	p, ok := parseCIDR(text)
	switch {
	case !ok:
	case p.Bits() < wideBits(p.Addr()):
		l.add(LintWideCIDR, path, SeverityWarning, fmt.Sprintf("it is %s of all addresses", share(p)), "list the prefixes that are meant")
	case ofTheNode(p.Addr()) && p.IsSingleIP():
		l.add(LintNodeAddress, path, SeverityWarning, "the pod reaches it as the node does: metadata services give out the node's credentials, and what listens on loopback trusts its callers", "for system components only")
	case ofTheNode(p.Addr()):
		l.add(LintNodeAddress, path, SeverityWarning, "it allows nothing: such an address is reached only through a CIDR of exactly it", "list the addresses that are meant")
	}
}

// wideBits: nobody but a registry has that much.
func wideBits(a netip.Addr) int {
	if a.Is4() {
		return 8
	}
	return 20
}

func share(p netip.Prefix) string {
	if p.Bits() == 0 {
		return "all"
	}
	return "1/" + strconv.Itoa(1<<p.Bits())
}

func (l *linter) sameNode() {
	if l.m.SameNode == SameNodeLocal {
		l.add(LintSameNode, "sameNode", SeverityInfo, "connections between pods of one node are judged and not encrypted", "fine where the node's memory is trusted; the other word is "+SameNodeMesh)
	}
}

// ruleKey names a peer rule among those of one list.
func ruleKey(r PeerRule) string {
	if r.Protocol == ProtocolTCP {
		return r.Workload
	}
	return r.Workload + "/" + r.Protocol
}

func peerNames(rules []PeerRule) []string {
	var names []string
	for i := range rules {
		if !slices.Contains(names, rules[i].Workload) {
			names = append(names, rules[i].Workload)
		}
	}
	return names
}
