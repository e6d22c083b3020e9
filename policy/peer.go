// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Peer is what a peer's certificate says about it, as the CDS put it there.
type Peer struct {
	Role            Role
	TrustDomain     string
	Workload        string // of role workload only
	WorkloadDigest  Digest
	ManifestVersion uint64
	ManifestDigest  Digest
	SubstrateFacts
}

// AcceptPeer judges a peer again by this manifest, whatever manifest its
// certificate was issued under. It does not see GuestFacts: those are judged
// at enrolment, with AcceptSubstrate. Acceptance allocates nothing, and ends
// when the certificate does or at NextChange.
func (m *Manifest) AcceptPeer(p Peer, now time.Time) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	if now.IsZero() {
		return timeless()
	}
	if p.TrustDomain != m.TrustDomain {
		return Decision{Code: CodeTrustDomain, Rule: "trustDomain", Expected: m.TrustDomain, Actual: shorten(p.TrustDomain), Remedy: "the peer belongs to another mesh"}
	}
	if d := m.acceptVersion(&p); !d.Allowed {
		return d
	}
	machines := m.index.roles[p.Role]
	switch p.Role {
	case RoleWorkload:
		if d := m.acceptEntry(&p); !d.Allowed {
			return d
		}
		machines = m.index.carriers
	case RoleNode, RoleCDS, RoleIngress:
		if p.Workload != "" || p.WorkloadDigest != "" {
			return Decision{Code: CodeRole, Rule: "role", Expected: fmt.Sprintf("no workload for role %q", p.Role), Actual: shorten(p.Workload), Remedy: "the certificate contradicts itself: do not trust its issuer"}
		}
	default:
		return Decision{Code: CodeRole, Rule: "role", Expected: `"node", "workload", "cds" or "ingress"`, Actual: shorten(string(p.Role))}
	}
	return acceptMachine(machines, &p, now.Unix())
}

// acceptVersion orders the manifests: a peer that knows a newer one may have
// been issued under rules we have not seen.
func (m *Manifest) acceptVersion(p *Peer) Decision {
	const rule = "version"
	switch {
	case p.ManifestVersion == 0 || !p.ManifestDigest.Valid():
		return Decision{Code: CodeManifestUnknown, Rule: rule, Expected: "the version and digest of a manifest", Actual: fmt.Sprintf("version %d, digest %s", p.ManifestVersion, shorten(string(p.ManifestDigest)))}
	case p.ManifestVersion > m.Version:
		return Decision{
			Code: CodeManifestBehind, Rule: rule, Expected: fmt.Sprintf("at most version %d", m.Version), Actual: fmt.Sprint(p.ManifestVersion),
			Remedy: "this side must fetch the newer manifest from the CDS first",
		}
	case p.ManifestVersion == m.Version && p.ManifestDigest != m.index.digest:
		return forkedPeer(rule, m.index.digest, p)
	case p.ManifestVersion == m.Version-1 && p.ManifestDigest != m.Previous:
		return forkedPeer(rule, m.Previous, p)
	}
	return Decision{Allowed: true, Code: CodeAllowed, Rule: rule}
}

func forkedPeer(rule string, want Digest, p *Peer) Decision {
	return Decision{
		Code: CodeManifestForked, Rule: rule, Expected: fmt.Sprintf("version %d to be %s", p.ManifestVersion, want), Actual: string(p.ManifestDigest),
		Remedy: "two manifests of one version are about: find out who signed them",
	}
}

func (m *Manifest) acceptEntry(p *Peer) Decision {
	w, ok := m.index.workloads[p.Workload]
	if !ok {
		return unlisted(p.Workload)
	}
	if w.digest != p.WorkloadDigest {
		return Decision{
			Code: CodeWorkloadChanged, Rule: w.path, Expected: string(w.digest), Actual: shorten(string(p.WorkloadDigest)),
			Remedy: "the entry changed since the peer enrolled: it must enrol again",
		}
	}
	return Decision{Allowed: true, Code: CodeAllowed, Rule: w.path}
}

func unlisted(workload string) Decision {
	return Decision{
		Code: CodeWorkloadUnlisted, Rule: "workloads", Expected: "the name of an entry", Actual: shorten(workload),
		Remedy: "add the workload to the manifest, and sign it",
	}
}

func acceptMachine(substrates []*substrateIndex, p *Peer, now int64) Decision {
	for _, s := range substrates {
		if s.accepts(&p.SubstrateFacts, now) {
			return Decision{Allowed: true, Code: CodeAllowed, Rule: s.path}
		}
	}
	if len(substrates) == 0 {
		return noSubstrate(p.Role)
	}
	return nearestRefusal(substrates, p.SubstrateFacts, now)
}

// nearestRefusal explains by the substrate that fails the fewest rules: most
// likely the one that was meant.
func nearestRefusal(substrates []*substrateIndex, facts SubstrateFacts, now int64) Decision {
	var nearest Decision
	fewest := -1
	for _, s := range substrates {
		match := SubstrateMatch{Rules: s.explain(&facts, now)}
		if failed := match.conclude(s.path); fewest < 0 || failed < fewest {
			nearest, fewest = match.Decision, failed
		}
	}
	return nearest
}

// PeerAllowed decides a connection or flow between two workloads: from's entry
// must list it under "to", and to's entry under "from". port is the port on
// the side of to. Allowing allocates nothing.
func (m *Manifest) PeerAllowed(from, to, protocol string, port uint16) Decision {
	if m == nil || m.index == nil {
		return undecided()
	}
	if d, ok := m.index.edges[edge{from, to, protocol, port}]; ok {
		return d
	}
	f, ok := m.index.workloads[from]
	if !ok {
		return unlisted(from)
	}
	t, ok := m.index.workloads[to]
	if !ok {
		return unlisted(to)
	}
	if d := sideAllows(f.entry.Peers.To, f.path+".peers.to", to, protocol, port, CodePeerNotAllowedEgress); !d.Allowed {
		return d
	}
	if d := sideAllows(t.entry.Peers.From, t.path+".peers.from", from, protocol, port, CodePeerNotAllowedIngress); !d.Allowed {
		return d
	}
	return Decision{Code: CodeUndecided, Rule: "workloads"} // unreachable: both sides allow, so the edge exists
}

func sideAllows(rules []PeerRule, path, peer, protocol string, port uint16, code Code) Decision {
	rule, names := findRule(rules, peer, protocol), peerNames(rules)
	switch {
	case rule != nil:
	case slices.Contains(names, peer):
		return Decision{
			Code: CodeProtocolNotAllowed, Rule: fmt.Sprintf("%s[%s]", path, peer), Expected: protocolsOf(rules, peer), Actual: shorten(protocol),
			Remedy: "add a rule for the protocol on both sides if they should talk over it",
		}
	default:
		expected := "no workload at all"
		if len(names) > 0 {
			expected = oneOf(names)
		}
		return Decision{Code: code, Rule: path, Expected: expected, Actual: shorten(peer), Remedy: "add a rule for it on both sides if they should talk"}
	}
	if !slices.Contains(rule.Ports, port) {
		return Decision{
			Code: CodePortNotAllowed, Rule: fmt.Sprintf("%s[%s].ports", path, ruleKey(*rule)), Expected: joinPorts(rule.Ports), Actual: fmt.Sprint(port),
			Remedy: "add the port on both sides if they should talk on it",
		}
	}
	return allow(path)
}

func protocolsOf(rules []PeerRule, peer string) string {
	var list []string
	for i := range rules {
		if rules[i].Workload == peer {
			list = append(list, rules[i].Protocol)
		}
	}
	return oneOf(list)
}

func joinPorts(ports []uint16) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ports)), ", "), "[]")
}
