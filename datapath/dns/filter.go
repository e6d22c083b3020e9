// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"slices"

	"github.com/c8s-dev/c8s/policy"
)

// Prefixes that no name of the public Internet leads to, beyond those that
// netip knows (IANA special-purpose address registries).
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	carrierNAT  = netip.MustParsePrefix("100.64.0.0/10")
	protocols   = netip.MustParsePrefix("192.0.0.0/24")
	labTests    = netip.MustParsePrefix("198.18.0.0/15")
	reserved4   = netip.MustParsePrefix("240.0.0.0/4")
	discard     = netip.MustParsePrefix("100::/64")
	siteLocal   = netip.MustParsePrefix("fec0::/10")
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64  = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	compatible  = netip.MustParsePrefix("::/96")
)

// public reports whether addr is an address of the public Internet. One that
// holds an IPv4 address is what that one is.
func public(addr netip.Addr) bool {
	if !routable(addr) || addr.IsPrivate() {
		return false
	}
	return !carrierNAT.Contains(addr) && !localNAT64.Contains(addr)
}

// routable reports whether addr can be that of another machine at all, and not
// one at which a cloud takes whoever asks for the node.
func routable(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.Is4In6() || policy.CloudService(addr) {
		return false
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return public(netip.AddrFrom4([4]byte(b[12:])))
	case sixToFour.Contains(addr):
		return public(netip.AddrFrom4([4]byte(b[2:6])))
	}
	for _, p := range []netip.Prefix{thisNetwork, protocols, labTests, reserved4, discard, siteLocal, compatible} {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// outside reports whether a name outside the cluster may lead to addr. One
// that leads into the cluster, to this node or, unless the node was told so,
// to a private address would turn whoever answers for the name into somebody
// who chooses what the pod and the node talk to (DNS rebinding).
func (r *recursor) outside(addr netip.Addr) bool {
	if addr == r.cfg.NodeAddr || !routable(addr) || claimed(r.cfg.Cluster, addr) {
		return false
	}
	return public(addr) || slices.ContainsFunc(r.cfg.Private, func(p netip.Prefix) bool { return p.Contains(addr) })
}
