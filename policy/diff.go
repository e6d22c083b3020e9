// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Effect says what a change does to what is allowed.
type Effect string

// The effects. Changes is for what has no clear direction.
const (
	Widens  Effect = "widens"
	Narrows Effect = "narrows"
	Changes Effect = "changes"
)

// Change is one difference between two manifests. Members of lists are named
// by what identifies them, not by position: order has no meaning.
type Change struct {
	Path   string `json:"path"`
	Before string `json:"before,omitempty"` // empty: was not there
	After  string `json:"after,omitempty"`  // empty: is gone
	Effect Effect `json:"effect"`
}

// Diff lists what changes when b replaces a, in the order of the manifest.
func Diff(a, b *Manifest) []Change {
	d := &differ{}
	d.value("schema", a.Schema, b.Schema, Changes)
	d.value("trustDomain", a.TrustDomain, b.TrustDomain, Changes)
	d.value("version", a.Version, b.Version, Changes)
	d.value("previous", a.Previous, b.Previous, Changes)
	d.value("notBefore", a.NotBefore, b.NotBefore, Changes)
	d.flag("production", !a.Production, !b.Production, a.Production, b.Production)
	d.operators(a.Operators, b.Operators)
	d.recovery(a.Recovery, b.Recovery)
	keyed(d, "witnesses", a.Witnesses, b.Witnesses, func(w Witness) string { return w.Key }, func(w Witness) string { return w.Name },
		func(path string, a, b Witness) { d.value(path+".name", a.Name, b.Name, Changes) })
	d.floor("witnessQuorum", a.WitnessQuorum, b.WitnessQuorum)
	d.signers(a.Signers, b.Signers)
	d.images("sandboxes", a.Sandboxes, b.Sandboxes)
	d.value("unlisted", orStop(a.Unlisted), orStop(b.Unlisted), Changes)
	d.value("sameNode", orMesh(a.SameNode), orMesh(b.SameNode), sameNodeEffect(b.SameNode))
	keyed(d, "substrates", a.Substrates, b.Substrates, func(s Substrate) string { return s.Name }, summary, d.substrate)
	keyed(d, "workloads", a.Workloads, b.Workloads, func(w Workload) string { return w.Name }, workloadSummary, d.workload)
	d.ingress(a.Ingress, b.Ingress)
	return d.changes
}

type differ struct{ changes []Change }

func (d *differ) add(path, before, after string, effect Effect) {
	d.changes = append(d.changes, Change{Path: path, Before: before, After: after, Effect: effect})
}

func (d *differ) value(path string, before, after any, effect Effect) {
	if before != after {
		d.add(path, fmt.Sprint(before), fmt.Sprint(after), effect)
	}
}

// flag compares by how much is allowed, and prints the written values.
func (d *differ) flag(path string, wideBefore, wideAfter bool, before, after any) {
	switch {
	case wideBefore == wideAfter:
	case wideAfter:
		d.value(path, before, after, Widens)
	default:
		d.value(path, before, after, Narrows)
	}
}

func (d *differ) allowed(path string, before, after bool) { d.flag(path, before, after, before, after) }

// floor says Widens when the value falls: it is a floor.
func (d *differ) floor(path string, before, after int) {
	switch c := cmp.Compare(after, before); {
	case c < 0:
		d.value(path, before, after, Widens)
	case c > 0:
		d.value(path, before, after, Narrows)
	}
}

// ceiling says Widens when the value rises.
func (d *differ) ceiling(path string, before, after uint32) {
	switch c := cmp.Compare(after, before); {
	case c > 0:
		d.value(path, before, after, Widens)
	case c < 0:
		d.value(path, before, after, Narrows)
	}
}

func (d *differ) operators(a, b Operators) {
	d.floor("operators.threshold", a.Threshold, b.Threshold)
	id := func(k OperatorKey) string {
		if id, err := k.ID(); err == nil {
			return string(id)
		}
		return k.PublicKey
	}
	keyed(d, "operators.keys", a.Keys, b.Keys, id, func(k OperatorKey) string { return k.Name + " (" + k.Algorithm + ")" },
		func(path string, a, b OperatorKey) { d.value(path+".name", a.Name, b.Name, Changes) })
}

// recovery: whoever can bring the root secret back can be the CDS.
func (d *differ) recovery(a, b *Recovery) {
	summary := func(r *Recovery) string { return fmt.Sprintf("%d of %d keys", r.Threshold, len(r.Keys)) }
	switch {
	case a == nil && b == nil:
	case a == nil:
		d.add("recovery", "", summary(b), Widens)
	case b == nil:
		d.add("recovery", summary(a), "", Narrows)
	default:
		d.floor("recovery.threshold", a.Threshold, b.Threshold)
		keyed(d, "recovery.keys", a.Keys, b.Keys, func(k RecoveryKey) string { return k.PublicKey }, func(k RecoveryKey) string { return k.Name },
			func(path string, a, b RecoveryKey) { d.value(path+".name", a.Name, b.Name, Changes) })
	}
}

func (d *differ) substrate(path string, a, b Substrate) {
	values(d, path+".roles", a.Roles, b.Roles)
	d.value(path+".tee", a.TEE, b.TEE, Changes)
	d.value(path+".product", a.Product, b.Product, Changes)
	d.value(path+".paravisor", a.Paravisor, b.Paravisor, Changes)
	d.value(path+".simulated", a.Simulated, b.Simulated, simulatedEffect(b.Simulated))
	values(d, path+".roots", a.Roots, b.Roots)
	values(d, path+".measurements", a.Measurements, b.Measurements)
	d.valuesOrAny(path+".hostData", a.HostData, b.HostData)
	d.registers(path+".registers", a.Registers, b.Registers)
	d.valuesOrAny(path+".machines", a.Machines, b.Machines)
	d.expires(path+".expires", a.Expires, b.Expires)
	switch {
	case a.SNP != nil && b.SNP != nil:
		d.snp(path+".snp", a.SNP, b.SNP)
	case a.TDX != nil && b.TDX != nil:
		d.tdx(path+".tdx", a.TDX, b.TDX)
	}
	d.flag(path+".collateral.use", a.Collateral.Use == CollateralUnchecked, b.Collateral.Use == CollateralUnchecked, a.Collateral.Use, b.Collateral.Use)
	d.ceiling(path+".collateral.maxAgeDays", a.Collateral.MaxAgeDays, b.Collateral.MaxAgeDays)
}

// registers: naming one register less or more changes which evidence is
// understood at all.
func (d *differ) registers(path string, a, b map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if after, ok := b[name]; ok {
			d.valuesOrAny(path+"."+name, a[name], after)
		} else {
			d.add(path+"."+name, oneOf(a[name]), "", Changes)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			d.add(path+"."+name, "", oneOf(b[name]), Changes)
		}
	}
}

// expires: a value without a time counts longest. The one spelling of times
// sorts as the moments do.
func (d *differ) expires(path string, a, b map[string]string) {
	values := maps.Clone(a)
	if values == nil {
		values = map[string]string{}
	}
	maps.Copy(values, b)
	for _, v := range slices.Sorted(maps.Keys(values)) {
		before, after := a[v], b[v]
		effect := Narrows
		if after == "" || before != "" && before < after {
			effect = Widens
		}
		d.value(path+"["+v+"]", before, after, effect)
	}
}

func (d *differ) snp(path string, a, b *SNPRules) {
	d.value(path+".signingKey", a.SigningKey, b.SigningKey, Changes)
	d.tcb(path+".minTCB", a.MinTCB, b.MinTCB)
	d.tcb(path+".minLaunchTCB", a.MinLaunchTCB, b.MinLaunchTCB)
	d.allowed(path+".allowProvisional", a.AllowProvisional, b.AllowProvisional)
	d.floor(path+".minGuestSVN", int(a.MinGuestSVN), int(b.MinGuestSVN))
	d.valuesOrAny(path+".idKeys", a.IDKeys, b.IDKeys)
	d.valuesOrAny(path+".authorKeys", a.AuthorKeys, b.AuthorKeys)
	d.required(path+".requirePlatform", a.RequirePlatform, b.RequirePlatform)
	d.allowed(path+".guest.allowDebug", a.Guest.AllowDebug, b.Guest.AllowDebug)
	d.allowed(path+".guest.allowMigration", a.Guest.AllowMigration, b.Guest.AllowMigration)
	d.allowed(path+".guest.allowSMT", a.Guest.AllowSMT, b.Guest.AllowSMT)
	d.demanded(path+".guest.requireSingleSocket", a.Guest.RequireSingleSocket, b.Guest.RequireSingleSocket)
	abi := func(v ABIVersion) int { return int(v.Major)<<8 | int(v.Minor) }
	d.floor(path+".guest.minABI", abi(a.Guest.MinABI), abi(b.Guest.MinABI))
	d.value(path+".guest.vmpl", a.Guest.VMPL, b.Guest.VMPL, Changes)
}

func (d *differ) tdx(path string, a, b *TDXRules) {
	values(d, path+".statuses", a.Statuses, b.Statuses)
	d.valuesOrAny(path+".advisories", a.Advisories, b.Advisories)
	d.floor(path+".minEvaluationNumber", int(a.MinEvaluationNumber), int(b.MinEvaluationNumber))
	d.valuesOrAny(path+".owners", a.Owners, b.Owners)
	d.valuesOrAny(path+".ownerConfigs", a.OwnerConfigs, b.OwnerConfigs)
	d.valuesOrAny(path+".serviceTDs", a.ServiceTDs, b.ServiceTDs)
	d.valuesOrAny(path+".xfams", a.XFAMs, b.XFAMs)
	values(d, path+".events", a.Events, b.Events)
	d.allowed(path+".guest.allowDebug", a.Guest.AllowDebug, b.Guest.AllowDebug)
	d.allowed(path+".guest.allowMigration", a.Guest.AllowMigration, b.Guest.AllowMigration)
	d.allowed(path+".guest.allowPerfmon", a.Guest.AllowPerfmon, b.Guest.AllowPerfmon)
	d.demanded(path+".guest.requireSeptVEDisable", a.Guest.RequireSeptVEDisable, b.Guest.RequireSeptVEDisable)
}

// tcb takes nil for the floor of a manifest that was not parsed.
func (d *differ) tcb(path string, a, b *TCB) {
	var before, after TCB
	if a != nil {
		before = *a
	}
	if b != nil {
		after = *b
	}
	d.floor(path+".fmc", int(before.FMC), int(after.FMC))
	d.floor(path+".bootLoader", int(before.BootLoader), int(after.BootLoader))
	d.floor(path+".tee", int(before.TEE), int(after.TEE))
	d.floor(path+".snp", int(before.SNP), int(after.SNP))
	d.floor(path+".microcode", int(before.Microcode), int(after.Microcode))
}

// demanded compares requirements: asking for more narrows.
func (d *differ) demanded(path string, before, after bool) {
	d.flag(path, !before, !after, before, after)
}

func (d *differ) required(path string, a, b []string) {
	for _, v := range a {
		if !slices.Contains(b, v) {
			d.add(fmt.Sprintf("%s[%s]", path, v), v, "", Widens)
		}
	}
	for _, v := range b {
		if !slices.Contains(a, v) {
			d.add(fmt.Sprintf("%s[%s]", path, v), "", v, Narrows)
		}
	}
}

// simulatedEffect: anybody can make simulated evidence, so accepting it is
// the wider rule although the two sets of machines are disjoint.
func simulatedEffect(after bool) Effect {
	if after {
		return Widens
	}
	return Narrows
}

func (d *differ) workload(path string, a, b Workload) {
	d.images(path+".images", a.Images, b.Images)
	d.namespaces(path+".namespaces", a.Namespaces, b.Namespaces)
	d.rules(path+".peers.to", a.Peers.To, b.Peers.To)
	d.rules(path+".peers.from", a.Peers.From, b.Peers.From)
	d.allowed(path+".hostAccess", a.HostAccess, b.HostAccess)
	values(d, path+".probes", a.Probes, b.Probes)
	d.value(path+".hostNetwork", a.HostNetwork, b.HostNetwork, Changes)
	d.allowed(path+".bootstrap", a.Bootstrap, b.Bootstrap)
	d.exec(path+".exec", a.Exec, b.Exec)
	d.outside(path, &a, &b)
}

func orMesh(word string) string {
	if word == "" {
		return SameNodeMesh
	}
	return word
}

// sameNodeEffect: what is not encrypted is protected by less.
func sameNodeEffect(after string) Effect {
	if after == SameNodeLocal {
		return Widens
	}
	return Narrows
}

func orStop(word string) string {
	if word == "" {
		return UnlistedStop
	}
	return word
}

func summary(s Substrate) string {
	text := fmt.Sprintf("%s %s, %d measurements, machines %s", s.TEE, s.Product, len(s.Measurements), oneOf(s.Machines))
	if s.Simulated {
		text = "SIMULATED " + text
	}
	return text
}

func workloadSummary(w Workload) string {
	text := fmt.Sprintf("%d images, talks to %d and accepts %d workloads", len(w.Images), len(w.Peers.To), len(w.Peers.From))
	if w.HostNetwork {
		text += ", IN THE NODE'S NETWORK"
	}
	for _, part := range []struct {
		n    int
		what string
	}{{len(w.DNS), "external names"}, {len(w.External), "rules for endpoints OUTSIDE THE MESH"}, {len(w.Publish), "PUBLISHED ports"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if slices.ContainsFunc(w.Images, func(i Image) bool { return i.Run != nil && i.Run.Privileged }) {
		text += ", PRIVILEGED"
	}
	return text
}

func ruleSummary(r PeerRule) string {
	return fmt.Sprintf("ports %s/%s", joinPorts(r.Ports), r.Protocol)
}
