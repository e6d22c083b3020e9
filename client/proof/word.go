// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// adoptionGrace is how long after a document came into force a proof may still
// follow the one before: the ingress reads both on one connection, but replicas
// of the CDS learn of it one after the other.
const adoptionGrace = 10 * time.Second

// word judges whether the ingress follows the operators' word in force.
func (v *verification) word() {
	a, g := v.a, v.against
	needs := []string{StepStatement, StepBeacon}
	m := g.Manifest.Manifest
	manifest := document{
		name: "manifest", now: Followed{m.Version, g.Manifest.Digest}, previous: m.Previous, since: g.ManifestSince,
		other: CodeManifest, behind: CodeManifestBehind, ahead: CodeManifestAhead,
	}
	v.step(StepManifest, manifest.now.String(), needs, func() (string, error) { return manifest.follows(a.Statement.Manifest, v.p.Beacon.Time) })

	list := document{name: "deny list", since: g.DenyListSince, other: CodeDenyList, behind: CodeDenyListBehind, ahead: CodeDenyListAhead}
	if g.DenyList != nil {
		list.now, list.previous = Followed{g.DenyList.List.Version, g.DenyList.Digest}, g.DenyList.List.Previous
	}
	v.step(StepDenyList, list.now.String(), needs, func() (string, error) { return list.follows(a.Statement.DenyList, v.p.Beacon.Time) })
}

// document is one that the operators sign in versions.
type document struct {
	name                 string
	now                  Followed
	previous             policy.Digest
	since                time.Time // zero: not known
	other, behind, ahead string    // codes
}

// follows accepts the document in force, and its direct predecessor while the
// ingress could not know better. Everything else is judged by the one in force
// in any case.
func (d *document) follows(stated Followed, beacon time.Time) (string, error) {
	switch {
	case stated == d.now:
		return stated.String(), nil
	case stated.Version > d.now.Version:
		return "", attest.NewFailure(d.ahead, "the "+d.name+" known here, "+d.now.String(), stated.String(), "fetch the newer "+d.name+" from the CDS first")
	case stated.Version == d.now.Version:
		return "", attest.NewFailure(d.other, d.now.String(), stated.String(), "two documents of one version are about: find out who signed them")
	case stated.Digest == d.previous && !d.since.IsZero() && beacon.Before(d.since.Add(adoptionGrace)):
		return stated.String() + ", the one before: its successor came into force at " + stamp(d.since), nil
	}
	return "", attest.NewFailure(d.behind, d.now.String(), stated.String(), "wait a minute; if it stays, the ingress is cut off from its CDS")
}
