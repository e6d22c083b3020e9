// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// External is one rule for endpoints outside the mesh: where pods of the entry
// may connect to without the other end proving anything to the mesh.
type External struct {
	Name     string   `json:"name"`            // DNS label; flow records say "external/<name>"
	CIDRs    []string `json:"cidrs,omitempty"` // destinations by address, or:
	Names    []string `json:"names,omitempty"` // by name, as in DNS, which they imply: the addresses that the node answered this pod with
	Ports    []uint16 `json:"ports"`
	Protocol string   `json:"protocol"`      // ProtocolTCP or ProtocolUDP
	TLS      bool     `json:"tls,omitempty"` // tcp: the first bytes must be a TLS ClientHello
	SNI      []string `json:"sni,omitempty"` // tcp: and it must name one of these; implies tls
}

// WantsHello reports whether the rule asks for a TLS ClientHello.
func (e *External) WantsHello() bool { return e.TLS || len(e.SNI) > 0 }

// Destination is where a pod wants to connect to, outside the mesh.
type Destination struct {
	Protocol string
	Addr     netip.AddrPort
	Names    []string     // what the node answered this pod with Addr for
	Local    bool         // Addr is the node's own: only a CIDR of exactly it counts
	Hello    *ClientHello // nil: nobody has looked at the first bytes yet
}

// ClientHello is what of a TLS ClientHello is judged.
type ClientHello struct {
	ServerName string // lower case; empty: it names none
	Encrypted  bool   // the name that is meant may be in an encrypted ClientHello
}

// ExternalAllowed finds the rule that lets pods of the entry connect to a
// destination outside the mesh. Before the first bytes are seen a rule that
// does not ask for a ClientHello goes before one that does: what no rule asks
// for is not looked at. Where the returned rule asks (WantsHello), the question
// must be put again with Hello before a byte is passed on.
//
// Addresses that mean something to the node itself (Local, loopback,
// link-local, multicast, unspecified) are reached only through a CIDR of
// exactly that address: neither a wide prefix nor a name that somebody else
// made to point there counts. Allowing allocates nothing.
func (m *Manifest) ExternalAllowed(workload string, to Destination) (*External, Decision) {
	if m == nil || m.index == nil {
		return nil, undecided()
	}
	w, ok := m.index.workloads[workload]
	if !ok {
		return nil, unlisted(workload)
	}
	to.Addr = netip.AddrPortFrom(to.Addr.Addr().Unmap(), to.Addr.Port())
	var fits *externalIndex
	for i := range w.externals {
		switch x := &w.externals[i]; {
		case !x.reaches(&to) || !x.opens(&to):
		case !x.entry.WantsHello():
			return x.entry, x.allowed
		case fits == nil && x.hears(to.Hello):
			fits = x
		}
	}
	if fits == nil {
		return nil, w.refuseExternal(&to)
	}
	return fits.entry, fits.allowed
}

// externalIndex is one rule, ready for the connection path.
type externalIndex struct {
	entry    *External
	allowed  Decision
	prefixes []netip.Prefix
	names    nameSet
	ports    map[uint16]struct{}
	sni      nameSet
}

func indexExternals(path string, rules []External) []externalIndex {
	list := make([]externalIndex, len(rules))
	for i := range rules {
		e := &rules[i]
		x := externalIndex{
			entry: e, allowed: allow(fmt.Sprintf("%s.external[%s]", path, e.Name)),
			names: newNameSet(e.Names), ports: set(e.Ports), sni: newNameSet(e.SNI),
		}
		for _, text := range e.CIDRs {
			if p, ok := parseCIDR(text); ok {
				x.prefixes = append(x.prefixes, p)
			}
		}
		list[i] = x
	}
	return list
}

// reaches: the address is one of the rule's.
func (x *externalIndex) reaches(to *Destination) bool {
	addr := to.Addr.Addr()
	exact := to.Local || ofTheNode(addr)
	for _, p := range x.prefixes {
		if p.Contains(addr) && (!exact || p.IsSingleIP()) {
			return true
		}
	}
	return !exact && addr.IsValid() && slices.ContainsFunc(to.Names, x.names.has)
}

func (x *externalIndex) opens(to *Destination) bool {
	_, ok := x.ports[to.Addr.Port()]
	return ok && x.entry.Protocol == to.Protocol
}

// hears: what was said fits, or nothing was yet.
func (x *externalIndex) hears(hello *ClientHello) bool {
	return hello == nil || len(x.entry.SNI) == 0 || !hello.Encrypted && x.sni.has(hello.ServerName)
}

// ofTheNode reports addresses that mean another machine, or the node itself,
// depending on who asks: loopback, and link-local with the metadata services
// of clouds, which some have elsewhere too.
func ofTheNode(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || CloudService(a)
}

// cloudServices is where clouds offer the machine that asks its credentials and
// configuration, beside the addresses of the link.
var cloudServices = [...]netip.Prefix{
	netip.MustParsePrefix("168.63.129.16/32"),       // Azure's WireServer
	netip.MustParsePrefix("100.100.100.200/32"),     // Alibaba Cloud
	netip.MustParsePrefix("fd00:100::100:200/128"),  // Alibaba Cloud
	netip.MustParsePrefix("192.0.0.192/32"),         // Oracle Cloud
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle Cloud
	netip.MustParsePrefix("fd00:ec2::/32"),          // AWS, all of its instance services
	netip.MustParsePrefix("fd20:ce::254/128"),       // Google Cloud
	netip.MustParsePrefix("fd00:42::42/128"),        // Scaleway
	netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"),  // Akamai
}

// CloudService reports an address at which a cloud takes whoever asks for the
// node, although it looks like that of any machine.
func CloudService(a netip.Addr) bool {
	a = a.WithZone("")
	return slices.ContainsFunc(cloudServices[:], func(p netip.Prefix) bool { return p.Contains(a) })
}

// refuseExternal explains by the rule that came nearest.
func (w *workloadIndex) refuseExternal(to *Destination) Decision {
	port := fmt.Sprintf("%s/%d", shorten(to.Protocol), to.Addr.Port())
	d := Decision{
		Code: CodeExternalNotAllowed, Rule: w.path + ".external", Expected: "no endpoint outside the mesh", Actual: fmt.Sprintf("%s %s", to.Addr.Addr(), port),
		Remedy: "add a rule for it if pods of the entry should connect there",
	}
	if len(w.externals) > 0 {
		d.Expected = "an endpoint of " + oneOf(externalNames(w.externals))
	}
	nearest := 0
	for i := range w.externals {
		x := &w.externals[i]
		near, named := 0, len(x.entry.Names) > 0
		switch reaches, opens := x.reaches(to), x.opens(to); {
		case reaches && opens:
			near = 3
		case opens && named:
			near = 2
		case reaches:
			near = 1
		}
		if near <= nearest {
			continue
		}
		nearest, d.Rule = near, x.allowed.Rule
		switch near {
		case 3:
			d.Code, d.Rule = CodeExternalSNI, d.Rule+".sni"
			d.Expected, d.Actual = "a ClientHello for "+oneOf(x.entry.SNI), to.Hello.describe()
			d.Remedy = "add the name to the rule if it is meant"
			if to.Hello != nil && to.Hello.Encrypted {
				d.Remedy = "have the client leave ECH off, or ask for tls without sni"
			}
		case 1:
			d.Code, d.Expected, d.Actual = CodeExternalPort, x.entry.Protocol+" "+joinPorts(x.entry.Ports), port
			d.Remedy = "add the port to the rule if it is meant"
		case 2:
			d.Code, d.Expected = CodeExternalName, "an address that the node answered this pod with for "+oneOf(x.entry.Names)
			d.Actual = to.Addr.Addr().String()
			if len(to.Names) > 0 {
				d.Actual += ", answered for " + oneOf(to.Names)
			}
			d.Remedy = "the pod must ask the node for the name, and connect while the answer lasts"
		}
	}
	return d
}

func (h *ClientHello) describe() string {
	switch {
	case h == nil:
		return "none"
	case h.Encrypted:
		return "one with an encrypted part, which may name another server"
	case h.ServerName == "":
		return "one that names no server"
	}
	return "one for " + shorten(h.ServerName)
}

func externalNames(list []externalIndex) []string {
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].entry.Name
	}
	return names
}

// parseCIDR reads the one accepted spelling of a prefix.
func parseCIDR(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	return p, err == nil && p.Masked().String() == text && !p.Addr().Is4In6() && !strings.Contains(text, "%")
}
